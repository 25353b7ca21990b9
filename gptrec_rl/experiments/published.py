"""What was published of the rows, with sources: one file beside the sets of experiments."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from gptrec_rl.config_files import read_config
from gptrec_rl.settings import Settings

PUBLISHED = "published.toml"


class Published(Settings):
    """What was published of one model on one data set."""

    source: str
    """Key of `sources`."""
    values: dict[str, float]
    """By metric name."""
    next_k: dict[int, float] = Field(default_factory=dict)
    """By cutoff K: the change of NDCG@K from Top-K to Next-K, as a share of Top-K's."""


class PublishedNumbers(Settings):
    """All published numbers, with their sources."""

    sources: dict[str, str]
    sets: dict[str, dict[str, Published]]
    """By the set's folder name and the row's key."""

    @model_validator(mode="after")
    def _sources_are_named(self) -> PublishedNumbers:
        for name, of_set in self.sets.items():
            for key, published in of_set.items():
                if published.source not in self.sources:
                    raise ValueError(f"{name}.{key} has source {published.source!r}, which is none of [sources]")
        return self


def read_published(folder: Path) -> PublishedNumbers:
    """Read the published numbers of the sets in a folder; none without their file."""
    file = folder / PUBLISHED
    return read_config(PublishedNumbers, file) if file.exists() else PublishedNumbers(sources={}, sets={})
