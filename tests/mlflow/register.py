"""Registers ONNX files as versions of a model; runs where MLflow is installed.

Arguments: the server, the model's name, then a file for each version. The last one gets
the alias `champion`.
"""

import sys

import mlflow
import onnx

server, name, *files = sys.argv[1:]
mlflow.set_tracking_uri(server)
mlflow.set_experiment("risk")
client = mlflow.MlflowClient()
for file in files:
    with mlflow.start_run():
        mlflow.set_tag("mlflow.source.git.commit", "1a2b3c4")
        mlflow.onnx.log_model(
            onnx.load(file), name="model", registered_model_name=name,
            save_as_external_data=False,
        )  # fmt: skip
client.set_model_version_tag(name, str(len(files)), "team", "risk")
client.set_registered_model_alias(name, "champion", str(len(files)))
