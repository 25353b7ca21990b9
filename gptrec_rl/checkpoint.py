"""The earlier place of `gptrec_rl.store.trained_models`, for scripts that import it."""

from gptrec_rl.store.trained_models import load_model, load_policy, read_model, save_policy

__all__ = ["load_model", "load_policy", "read_model", "save_policy"]
