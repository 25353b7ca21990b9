"""Stage 1 (supervised pre-training) and stage 2 (GAE, PPO losses, the Learner)."""
