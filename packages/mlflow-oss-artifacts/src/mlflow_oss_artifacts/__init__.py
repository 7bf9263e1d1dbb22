"""MLflow artifacts on Alibaba Cloud Object Storage Service: `oss://bucket/path`."""
