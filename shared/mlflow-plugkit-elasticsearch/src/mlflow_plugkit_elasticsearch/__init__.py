"""What Plugkit's Elasticsearch stores have in common: settings, one pooled client, schema, documents, searches."""

from mlflow_plugkit_elasticsearch.bulk import bulk
from mlflow_plugkit_elasticsearch.documents import Action, Conflict, Document, Documents, Hit, Outcome
from mlflow_plugkit_elasticsearch.schema import Index
from mlflow_plugkit_elasticsearch.settings import ElasticsearchSettings

__all__ = ["Action", "Conflict", "Document", "Documents", "ElasticsearchSettings", "Hit", "Index", "Outcome", "bulk"]
