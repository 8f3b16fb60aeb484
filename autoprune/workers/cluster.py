"""Ray for the duration of a command: it is started and stopped here, or a running cluster is joined."""

import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from autoprune.config import SearchConfig
from autoprune.errors import UserError
from autoprune.files.writing import scratch

STORE_BYTES = 128 * 2**20  # Ray's own object store: of a local pool only policies and losses go through it
LOCAL = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # what is left of a driver that was killed waits no longer
    # Ray then takes 127.0.0.1 for this machine's address, and nothing listens on the network
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}

TOKEN = secrets.token_hex(32)  # of this process, which Ray remembers; its own default would stay in the home directory


class Cluster:
    """Args:
    config: its workers, address, device and shares of GPUs.

    Attributes:
        workers: the number of workers.
        threads: the number of threads of each worker.
        starts: the number of workers that may start at the same time.

    Raises:
        UserError: Ray does not start, no cluster answers, or the cluster lacks resources for the workers.
    """

    def __init__(self, config: SearchConfig) -> None:
        self._address, self._scratch, self._mine = config.ray_address, ExitStack(), False
        gpus = config.gpus_per_worker
        self._gpus = float(config.device.startswith("cuda")) if gpus is None else gpus
        if self._address is None:
            self.workers = config.workers or 1
            given = os.environ.get("OMP_NUM_THREADS", "")
            self.threads = int(given) if given.isdigit() else max(1, (os.cpu_count() or 1) // self.workers)
            self.starts = max(1, (os.cpu_count() or 1) // 2)
            self._start()
        else:
            self._join(self._address)
            self.workers, self.threads = config.workers or self._room(), 1
            self.starts = self.workers
        _hush()
        try:
            self._check()
        except UserError:
            self.close()
            raise

    @property
    def options(self) -> dict[str, Any]:
        """Ray's options for a worker. Ray does not restart workers, because the supervisor replaces them."""
        return {"num_cpus": self.threads, "num_gpus": self._gpus, "max_restarts": 0, "max_task_retries": 0}

    def close(self) -> None:
        """Stop Ray if it was started here; leave a joined cluster."""
        import ray

        if self._mine:
            ray.shutdown()
        self._scratch.close()

    def _start(self) -> None:
        own = {} if "RAY_AUTH_MODE" in os.environ else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        with _environment(LOCAL | own):
            import ray

            if ray.is_initialized():  # by a program that uses autoprune as a library
                return
            _read_token()
            _stay_on_the_loopback()
            # Ray opens its own folder to everybody: that lies in one that is the user's alone
            try:
                directory = self._scratch.enter_context(scratch(Path(tempfile.gettempdir()), "autoprune-"))
                ray.init(
                    address="local", num_cpus=self.workers * self.threads, include_dashboard=False,
                    log_to_driver=False, logging_level=logging.ERROR, object_store_memory=STORE_BYTES,
                    _temp_dir=str(directory / "r"),  # short, as paths of sockets must be
                )  # fmt: skip
            except Exception as error:
                self._scratch.close()
                raise UserError(f"Ray did not start here ({_line(error)}). --workers 1 scores without it.") from error
        self._mine = True

    def _join(self, address: str) -> None:
        with _environment({"RAY_USAGE_STATS_ENABLED": "0"}):
            import ray

            if ray.is_initialized():
                return
            try:
                _knock(address)
                _read_token()
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:
                raise UserError(
                    f"no Ray cluster could be joined at '{address}' ({_line(error)}). `ray start --head` starts one "
                    "(with a token, RAY_AUTH_MODE=token must be set here too); without --ray-address, --workers N "
                    "starts Ray for the length of the search."
                ) from error
        self._mine = True

    def _room(self) -> int:
        """As many workers as the cluster has GPUs for, or else processors."""
        total = self._total()
        return max(1, int(total.get("GPU", 0) / self._gpus if self._gpus else total.get("CPU", 1)))

    def _check(self) -> None:
        total = self._total()
        for kind, each in (("CPU", float(self.threads)), ("GPU", self._gpus)):
            if each > total.get(kind, 0):
                raise UserError(
                    f"a worker needs {each:g} {kind}, and the Ray cluster has {total.get(kind, 0):g} in all: "
                    "look at --gpus-per-worker and --device."
                )

    def _total(self) -> dict[str, float]:
        import ray

        untyped: Any = ray
        return dict(untyped.cluster_resources())


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables that are set unless the user has set them, and gone afterwards."""
    added = {key: value for key, value in values.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def _stay_on_the_loopback() -> None:
    """Tell a Ray that a program has imported before, because Ray reads the environment only then."""
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False


def _knock(address: str) -> None:
    """Raise an OSError where nobody listens: Ray itself would try for minutes.

    `auto` is what RAY_ADDRESS names, or the cluster that was last started on this machine.
    """
    if address == "auto":
        last = Path("/tmp/ray/ray_current_cluster")  # noqa: S108 (Ray's own)
        address = os.environ.get("RAY_ADDRESS") or (last.read_text().strip() if last.is_file() else "")
        if not address:
            raise ConnectionError("none was started on this machine, and RAY_ADDRESS is not set")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _read_token() -> None:
    """Have Ray look at RAY_AUTH_* again, which it has remembered from an earlier cluster of this process."""
    with suppress(ImportError, AttributeError):  # there is no public way
        from ray import _raylet

        untyped: Any = _raylet

        untyped.Config.initialize("")
        untyped.AuthenticationTokenLoader.instance().reset_cache()


def _hush() -> None:
    """Keep Ray from printing paragraphs about dead workers on our stdout: the supervisor says it in one sentence."""
    with suppress(ImportError):  # there is no public way; without it, only the output is less tidy
        from ray._private import worker

        if hasattr(worker, "print_to_stdstream"):
            worker.print_to_stdstream = lambda *_, **__: None


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
