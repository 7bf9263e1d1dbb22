"""Train a linear classifier on scikit-learn's breast-cancer data, and log a metric for each epoch."""

import argparse

import mlflow
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def split():
    """The data as four frames: training and test features, training and test labels."""
    features, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    return train_test_split(features, labels, test_size=0.3, random_state=7, stratify=labels)


def train(alpha: float, epochs: int):
    """Train inside the active run: `epochs` values of `loss` and `accuracy`, and the fitted pipeline."""
    train_x, test_x, train_y, test_y = split()
    scaler = StandardScaler().fit(train_x)
    classifier = SGDClassifier(loss="log_loss", alpha=alpha, random_state=7)
    mlflow.log_params({"alpha": alpha, "epochs": epochs})
    for epoch in range(epochs):
        classifier.partial_fit(scaler.transform(train_x), train_y, classes=np.unique(train_y))
        model = make_pipeline(scaler, classifier)
        loss = log_loss(test_y, model.predict_proba(test_x))
        mlflow.log_metrics({"loss": loss, "accuracy": model.score(test_x, test_y)}, step=epoch)
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--alpha", type=float, default=0.0001)
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()
    with mlflow.start_run():
        train(options.alpha, options.epochs)
