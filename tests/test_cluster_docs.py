"""docs/cluster.md names options that exist, and its Kubernetes manifest is one that KubeRay takes.

What may stand in a manifest is derived from the Go types of the KubeRay operator (github.com/ray-project/kuberay,
ray-operator/apis/ray/v1, as read in November 2026; `authOptions` came with 1.5.1): names and kinds of the fields, and
which of them are required.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from autoprune.cli import app

ROOT = Path(__file__).parent.parent
KUBERAY = ROOT / "docs" / "kuberay"
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
RAY_IMAGE = re.compile(r"^FROM rayproject/ray:(\d+\.\d+\.\d+)-py(\d)(\d+)-gpu$", re.MULTILINE)

TEXTS = "map of texts"  # map[string]string
JOB: dict[str, Any] = {
    "activeDeadlineSeconds": int, "backoffLimit": int, "clusterSelector": TEXTS, "deletionStrategy": dict,
    "entrypoint": str, "entrypointNumCpus": (int, float), "entrypointNumGpus": (int, float),
    "entrypointResources": str, "jobId": str, "managedBy": str, "metadata": TEXTS, "rayClusterSpec": dict,
    "runtimeEnvYAML": str, "shutdownAfterJobFinishes": bool, "submissionMode": str, "submitterConfig": dict,
    "submitterPodTemplate": dict, "suspend": bool, "ttlSecondsAfterFinished": int,
}  # fmt: skip
CLUSTER: dict[str, Any] = {
    "authOptions": dict, "autoscalerOptions": dict, "enableInTreeAutoscaling": bool,
    "gcsFaultToleranceOptions": dict, "headGroupSpec": dict, "headServiceAnnotations": TEXTS, "managedBy": str,
    "rayVersion": str, "suspend": bool, "upgradeStrategy": dict, "workerGroupSpecs": list,
}  # fmt: skip
HEAD: dict[str, Any] = {
    "enableIngress": bool, "headService": dict, "labels": TEXTS, "rayStartParams": TEXTS, "resources": TEXTS,
    "serviceType": str, "template": dict,
}  # fmt: skip
WORKERS: dict[str, Any] = {
    "groupName": str, "idleTimeoutSeconds": int, "labels": TEXTS, "maxReplicas": int, "minReplicas": int,
    "numOfHosts": int, "rayStartParams": TEXTS, "replicas": int, "resources": TEXTS, "scaleStrategy": dict,
    "suspend": bool, "template": dict,
}  # fmt: skip
SUBMISSION_MODES = {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"}
TAKES_FALSE = {"include-dashboard", "log-color"}  # of any other flag KubeRay drops the value "false"


@cache
def manifest() -> dict[str, dict[str, Any]]:
    """The objects of rayjob.yaml by kind."""
    documents: Iterator[dict[str, Any]] = yaml.safe_load_all((KUBERAY / "rayjob.yaml").read_text(encoding="utf-8"))
    return {document["kind"]: document for document in documents}


def job() -> dict[str, Any]:
    spec: dict[str, Any] = manifest()["RayJob"]["spec"]
    return spec


def groups() -> list[dict[str, Any]]:
    return [job()["rayClusterSpec"]["headGroupSpec"], *job()["rayClusterSpec"]["workerGroupSpecs"]]


def check(what: Mapping[str, Any], fields: Mapping[str, Any], required: set[str]) -> None:
    assert set(what) <= set(fields), f"unknown: {set(what) - set(fields)}"
    assert required <= set(what), f"missing: {required - set(what)}"
    for key, value in what.items():
        if fields[key] is TEXTS:
            assert all(isinstance(text, str) for text in [*value, *value.values()]), f"{key} takes texts: {value}"
        else:
            kinds = fields[key] if isinstance(fields[key], tuple) else (fields[key],)
            assert type(value) in kinds, f"{key}: {value!r}"


@cache
def ray_options() -> dict[str, dict[str, bool]]:
    """Options of the commands of `ray` that the page uses, and whether they are flags without a value."""
    code = (
        "import json; from ray.scripts.scripts import cli\n"
        "options = lambda command: {o: getattr(p, 'is_flag', False) for p in command.params for o in p.opts}\n"
        "print(json.dumps({name: options(command) for name, command in cli.commands.items()}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    options: dict[str, dict[str, bool]] = json.loads(done.stdout)
    return options


def commands() -> Iterator[list[str]]:
    """The commands in the page's shell blocks, in words; of a pipe, what is before it."""
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["srun"]:
                words = words[1:]
            if words and "=$(" not in line:
                yield words


def of(program: str) -> list[list[str]]:
    found = [words for words in commands() if words[0] == program]
    found += [words[words.index("--") + 1 :] for words in commands() if "--" in words]
    return [words for words in found if words[0] == program]


def parse(words: list[str]) -> dict[str, Any]:
    """What autoprune understands of a command line, which is not run."""
    program, name, *rest = words
    assert program == "autoprune"
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    params: dict[str, Any] = command.make_context(name, rest).params
    return params


def test_the_manifest_has_a_claim_and_a_job() -> None:
    assert set(manifest()) == {"PersistentVolumeClaim", "RayJob"}
    assert manifest()["PersistentVolumeClaim"]["apiVersion"] == "v1"
    assert manifest()["RayJob"]["apiVersion"] == "ray.io/v1"
    claim = manifest()["PersistentVolumeClaim"]["spec"]
    assert set(claim["accessModes"]) <= {"ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"}
    assert claim["resources"]["requests"]["storage"]


def test_kuberay_knows_every_field_of_the_job() -> None:
    check(job(), JOB, {"entrypoint", "rayClusterSpec"})
    assert job()["submissionMode"] in SUBMISSION_MODES
    assert job()["shutdownAfterJobFinishes"] or not job()["ttlSecondsAfterFinished"]
    check(job()["rayClusterSpec"], CLUSTER, {"headGroupSpec", "rayVersion"})
    assert job()["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    head, *workers = groups()
    check(head, HEAD, {"rayStartParams", "template"})
    assert workers
    for group in workers:
        check(group, WORKERS, {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"})
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_ray_start_params_are_flags_of_ray_start() -> None:
    for group in groups():
        for key, value in group["rayStartParams"].items():
            assert f"--{key}" in ray_options()["start"], key
            assert ray_options()["start"][f"--{key}"] == (value == "true"), key
            assert value != "false" or key in TAKES_FALSE, key


def test_every_mount_has_a_volume_and_gpus_are_asked_for() -> None:
    for group in groups():
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) == set(volumes)
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        assert container["resources"]["limits"]["nvidia.com/gpu"] >= 1
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert any(environment["AUTOPRUNE_CACHE"].startswith(f"{path}/") for path in mounts)


def test_runs_are_on_the_claim_of_the_head_alone() -> None:
    claim = manifest()["PersistentVolumeClaim"]["metadata"]["name"]
    claimed = [
        [v["persistentVolumeClaim"]["claimName"] for v in group["template"]["spec"]["volumes"] if "emptyDir" not in v]
        for group in groups()
    ]
    assert claimed == [[claim], *([] for _ in groups()[1:])]


def test_the_entrypoint_is_one_plain_command_that_autoprune_takes() -> None:
    assert not set(job()["entrypoint"]) & set("\n;|&<>$`'\"")  # KubeRay pastes it into a shell command
    given = parse(shlex.split(job()["entrypoint"]))
    assert given["ray_address"] == "auto"
    assert given["device"] == "cuda"
    (container,) = groups()[0]["template"]["spec"]["containers"]
    assert str(given["out"].parent) in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_image_has_the_manifests_ray_and_is_the_one_that_is_built() -> None:
    dockerfile = (KUBERAY / "Dockerfile").read_text(encoding="utf-8")
    found = RAY_IMAGE.search(dockerfile)
    assert found
    version, major, minor = found.groups()
    assert (int(major), int(minor)) >= (3, 11)
    assert job()["rayClusterSpec"]["rayVersion"] == version
    assert f'"ray[default]=={version}"' in dockerfile
    (image,) = {container["image"] for group in groups() for container in group["template"]["spec"]["containers"]}
    assert f"docker build -f docs/kuberay/Dockerfile -t {image} ." in PAGE
    assert f"docker build -f docs/kuberay/Dockerfile -t {image} ." in dockerfile


def test_the_image_copies_what_exists() -> None:
    copied = re.findall(r"^COPY --chown=\S+ (.*) \S+$", (KUBERAY / "Dockerfile").read_text(), re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert {"autoprune", "agents", "envs", "search_spaces", "pyproject.toml"} <= set(names)
    assert all((ROOT / name).exists() for name in names)


@pytest.mark.parametrize("words", of("autoprune"), ids=" ".join)
def test_autoprune_takes_the_options_of_the_page(words: list[str]) -> None:
    parse(words)


@pytest.mark.parametrize("words", of("ray"), ids=" ".join)
def test_ray_has_the_options_of_the_page(words: list[str]) -> None:
    name, *rest = words[1:]
    rest = rest[: rest.index("--")] if "--" in rest else rest
    options = ray_options()[name]
    if name == "symmetric-run":  # passes the others on
        options = ray_options()["start"] | options
    named = [word.partition("=")[0] for word in rest if word.startswith("-")]
    assert named
    assert set(named) <= set(options)


def test_options_in_the_pages_prose_exist() -> None:
    known = {
        option for name in ("start", "symmetric-run", "get-auth-token", "status") for option in ray_options()[name]
    }
    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
        known |= {option for parameter in command.params for option in parameter.opts}
    others = {"--version", "--shm-size", "--exclusive"}  # of ray and Python, Docker, Slurm
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", prose)) <= known | others


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert target.startswith("https://") or (ROOT / "docs" / target).exists(), target
