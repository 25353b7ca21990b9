"""`make bench`."""

if __name__ == "__main__":
    from benchmarks.command import main  # not for the processes that are started: they import what they need

    main()
