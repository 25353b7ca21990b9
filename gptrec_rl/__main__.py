"""`python -m gptrec_rl` is the command `gptrec-rl`."""

from gptrec_rl.cli import main

if __name__ == "__main__":
    main(prog_name="gptrec-rl")
