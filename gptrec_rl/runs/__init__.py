"""What a user does, as plain functions over run folders: train, pretrain, tune, reproduce, recommend."""
