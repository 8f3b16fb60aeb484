"""MLflow: runs of the experiment `autoprune`, at MLFLOW_TRACKING_URI or in a SQLite file of the run."""

import importlib
import importlib.util
import logging
import os
import time
import warnings
from collections.abc import Mapping
from typing import Any

from autoprune.errors import UserError
from autoprune.ports.tracker import TrackedRun, Tracker

FILE = "mlflow.db"
LONGEST = 500
"""Characters of a setting."""


class MLflow(Tracker):
    """Metrics, and the settings as parameters."""

    _client: Any
    _id: str

    @classmethod
    def check(cls) -> None:
        """Look for the package.

        Raises:
            UserError: it is not installed.
        """
        if importlib.util.find_spec("mlflow") is None:
            raise UserError("track=mlflow needs the package mlflow or mlflow-skinny: pip install 'autoprune[track]'.")
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)  # they tell of every table
        with warnings.catch_warnings():  # here, since filters of warnings are not made for threads
            warnings.simplefilter("ignore")
            importlib.import_module("mlflow.store.tracking.sqlalchemy_store")

    def start(self, run: TrackedRun) -> str:
        """Make a run, or open the one of this name again."""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a search waits for no server
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(run.folder / FILE).resolve()}"
        self._client = MlflowClient(tracking_uri=place)
        if run.id is not None:
            self._id = run.id
            self._client.update_run(self._id, status="RUNNING")
            return self._id
        known = self._client.get_experiment_by_name("autoprune")
        experiment = known.experiment_id if known else self._client.create_experiment("autoprune")
        tags = {"kind": run.kind} | ({"group": run.group} if run.group else {})
        self._id = str(self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id)
        params = [Param(key, str(value)[:LONGEST]) for key, value in run.settings.items()]
        self._client.log_batch(self._id, params=params)
        return self._id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write metrics."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def finish(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._id)
