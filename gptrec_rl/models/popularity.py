"""The earlier place of `PopularityRecommender`, for scripts that import it."""

from gptrec_rl.models.markov import PopularityRecommender

__all__ = ["PopularityRecommender"]
