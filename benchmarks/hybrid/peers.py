"""Starts the peers' servers, each with the settings that suit it best on this machine."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hybrid.environments import INFINITY, MOSEC, TRITON
from benchmarks.hybrid.models import MODEL_FOLDER
from benchmarks.hybrid.processes import ROOT, Running, free_port, server_process
from penstock_server.config import usable_cores

WIDTH = 384
_TRITON_CONFIG = """\
name: "minilm"
backend: "python"
max_batch_size: {batch_rows}
input [{{ name: "TEXT", data_type: TYPE_STRING, dims: [1] }}]
output [{{ name: "VECTOR", data_type: TYPE_FP32, dims: [{width}] }}]
instance_group [{{ kind: KIND_CPU, count: {instances} }}]
dynamic_batching {{
  max_queue_delay_microseconds: {delay_us}
  priority_levels: 2
  default_priority_level: 2
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {timeout_us}
    allow_timeout_override: true
  }}
}}
parameters {{ key: "folder", value: {{ string_value: "{folder}" }} }}
parameters {{ key: "threads", value: {{ string_value: "{threads}" }} }}
"""
# The backend's interpreter is isolated: it takes no notice of PYTHONPATH.
_TRITON_MODEL = """\
import os
import sys

sys.path += os.environ["PYTHONPATH"].split(os.pathsep)
from benchmarks.hybrid.servers.triton_model import TritonPythonModel
"""
# A request's own limit counts only if there is a longer one here; longer than any of ours.
_TRITON_TIMEOUT_US = 300_000_000
# Of MiniLM-L6: optimum reads the shape of the model here, and nothing of it changes the graph.
_MINILM_CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": WIDTH,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 6,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}


@dataclass(frozen=True, slots=True)
class TritonSettings:
    """Settings of Triton's model."""

    batch_rows: int
    instances: int
    threads: int
    delay_us: int


@contextmanager
def triton_server(folder: Path, settings: TritonSettings) -> Generator[Running]:
    """Starts Triton with a Python backend, directly: pytriton's own wrapper is not needed."""
    triton = TRITON.packages / "pytriton" / "tritonserver"
    stub = "triton_python_backend_stub"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    backends = folder / "backends"
    shutil.copytree(triton / "backends", backends)
    shutil.copy(triton / "python_backend_stubs" / version / stub, backends / "python" / stub)
    (backends / "python" / stub).chmod(0o755)
    _write_repository(folder / "models", settings)
    port = free_port()
    command = [str(triton / "bin" / "tritonserver"), "--disable-auto-complete-config"]
    command += [f"--model-repository={folder / 'models'}", f"--backend-directory={backends}"]
    command += ["--grpc-address=127.0.0.1", f"--grpc-port={port}", "--allow-http=false"]
    command += ["--allow-metrics=false"]
    environment = {
        "LD_LIBRARY_PATH": str(TRITON.packages / "nvidia_pytriton.libs"),
        "PYTHONPATH": os.pathsep.join([str(TRITON.packages), str(ROOT)]),
    }
    with server_process(command, folder / "server.log", environment) as process:
        yield Running(f"127.0.0.1:{port}", process.pid)


def _write_repository(folder: Path, settings: TritonSettings) -> None:
    (folder / "minilm" / "1").mkdir(parents=True)
    (folder / "minilm" / "1" / "model.py").write_text(_TRITON_MODEL, encoding="utf-8")
    config = _TRITON_CONFIG.format(
        batch_rows=settings.batch_rows,
        instances=settings.instances,
        threads=settings.threads,
        delay_us=settings.delay_us,
        folder=MODEL_FOLDER,
        width=WIDTH,
        timeout_us=_TRITON_TIMEOUT_US,
    )
    (folder / "minilm" / "config.pbtxt").write_text(config, encoding="utf-8")


@contextmanager
def infinity_server(folder: Path) -> Generator[Running]:
    """Starts infinity with its optimum engine on a folder as Hugging Face lays it out."""
    model = folder / "minilm"
    (model / "onnx").mkdir(parents=True)
    (model / "onnx" / "model.onnx").symlink_to(MODEL_FOLDER / "model.onnx")
    shutil.copy(MODEL_FOLDER / "tokenizer.json", model)
    tokenizer = {"tokenizer_class": "BertTokenizerFast", "model_max_length": 256, "do_lower_case": True}
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (model / "config.json").write_text(json.dumps(_MINILM_CONFIG), encoding="utf-8")
    port = free_port()
    command = [str(INFINITY.folder / "bin" / "infinity_emb"), "v2", "--model-id", str(model)]
    command += ["--served-model-name", "minilm", "--engine", "optimum", "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--batch-size", "32", "--no-bettertransformer"]
    environment = {
        "DO_NOT_TRACK": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "cache"),
    }
    with server_process(command, folder / "server.log", environment) as process:
        yield Running(f"127.0.0.1:{port}", process.pid)


@contextmanager
def mosec_server(folder: Path, deadline_s: float) -> Generator[Running]:
    """Starts mosec with one worker a core."""
    port = free_port()
    command = [str(MOSEC.python), "-m", "benchmarks.hybrid.servers.mosec_server", "--address", "127.0.0.1"]
    command += ["--port", str(port), "--timeout", str(int(deadline_s * 1e3)), "--log-level", "warning"]
    environment = {
        "MODEL_FOLDER": str(MODEL_FOLDER),
        "WORKERS": str(usable_cores()),
        "PYTHONPATH": str(ROOT),
    }
    with server_process(command, folder / "server.log", environment) as process:
        yield Running(f"127.0.0.1:{port}", process.pid)
