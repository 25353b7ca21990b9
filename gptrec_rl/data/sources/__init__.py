"""Where interactions come from: MovieLens-1M, Steam-2M, anybody's CSV or Parquet, and a made-up world."""
