"""MLflow artifacts in Hugging Face Hub repositories and Storage Buckets, under `xet:`."""
