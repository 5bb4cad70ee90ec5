"""`python -m dmnet VERB`: the command line of `dmnet.pipeline.cli`."""

from dmnet.pipeline.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
