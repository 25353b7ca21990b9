"""What is kept on disk or in an object store: trained models, and the policies and learner states of a run."""
