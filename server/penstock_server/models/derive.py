"""Derives a model's manifest from its folder: settings first, then Hugging Face's files, then the graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from penstock_server.domain.errors import ModelBroken
from penstock_server.domain.model import TOKENS_MAX, ModelKey, ModelManifest, Pooling
from penstock_server.domain.tasks import ScoreFunction, Task, Truncation
from penstock_server.models import onnx_scan
from penstock_server.models.huggingface import (
    ModelConfig,
    SentenceModules,
    positions_max,
    read_config,
    read_modules,
    read_pad_id,
    read_tokens_max,
)
from penstock_server.models.onnx_scan import GraphOutline, GraphValue, scan_onnx
from penstock_server.models.settings import SETTINGS_FILE, ModelSettings, read_settings

# What BERT and nearly all encoders of its line read; used when no file says anything.
_TOKENS_MAX_DEFAULT = 512
_FED_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
_VECTOR_OUTPUTS = ("sentence_embedding", "last_hidden_state", "token_embeddings")
_LOGIT_OUTPUTS = ("logits", "output")
_ARCHITECTURE_TASKS = (
    ("ForSequenceClassification", Task.CLASSIFY),
    ("ForTokenClassification", Task.TAG),
    ("Model", Task.EMBED),
)
_PRECISIONS = (
    (frozenset({onnx_scan.INT4, onnx_scan.UINT4}), "int4"),
    (frozenset({onnx_scan.INT8, onnx_scan.UINT8}), "int8"),
    (frozenset({onnx_scan.FLOAT16}), "fp16"),
    (frozenset({onnx_scan.BFLOAT16}), "bf16"),
)


def derive_manifest(key: ModelKey, folder: Path) -> ModelManifest:
    """Reads everything that an engine, a tokenizer and a head need to know of a model version.

    Args:
        key: Name and version the folder stands for.
        folder: A Hugging Face or sentence-transformers export with an ONNX graph.

    Raises:
        ModelBroken: A file is missing, unreadable or contradicts another; the message says what to do.
    """
    return _Derivation(key, folder).manifest()


def find_onnx(folder: Path, settings: ModelSettings) -> Path:
    """Finds the graph: what ``penstock.toml`` says, ``model.onnx``, ``onnx/model.onnx``, or the only one."""
    if settings.onnx is not None:
        path = folder / settings.onnx
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise ModelBroken(
                f"{folder / SETTINGS_FILE}: onnx = {settings.onnx!r} is no file in that folder. Correct it.",
                path=str(path),
            )
        return path
    for path in (folder / "model.onnx", folder / "onnx" / "model.onnx"):
        if path.is_file():
            return path
    found = sorted([*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")])
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise ModelBroken(f"{folder} has several ONNX files ({names}). Set onnx = ... in {SETTINGS_FILE}.")
    raise ModelBroken(
        f"{folder} has no ONNX file. Export one with `optimum-cli export onnx --model NAME {folder}`, or "
        "remove the folder.",
        path=str(folder),
    )


@dataclass(slots=True)
class _Sources:
    settings: ModelSettings
    config: ModelConfig
    modules: SentenceModules
    graph: GraphOutline


class _Derivation:
    """One walk over a folder; methods answer one question each."""

    def __init__(self, key: ModelKey, folder: Path) -> None:
        self._key = key
        self._folder = folder
        settings = read_settings(folder)
        self._onnx_path = find_onnx(folder, settings)
        self._sources = _Sources(
            settings, read_config(folder), read_modules(folder), scan_onnx(self._onnx_path)
        )

    def manifest(self) -> ModelManifest:
        self._check_inputs()
        task = self._task()
        output = self._output(task)
        pooling = self._pooling(task, output)
        width = self._width(task, output)
        settings = self._sources.settings
        tokenizer_path = self._tokenizer_path()
        return ModelManifest(
            key=self._key,
            folder=self._folder,
            onnx_path=self._onnx_path,
            tokenizer_path=tokenizer_path,
            task=task,
            tokens_max=self._tokens_max(),
            truncation=Truncation(settings.truncation or "right"),
            width=width,
            pooling=pooling,
            normalize=task is Task.EMBED and self._normalize(),
            labels=() if task is Task.EMBED else self._labels(width),
            score_function=self._score_function(task, width),
            output_name=output.name,
            precision=settings.precision or self._precision(),
            pad_id=read_pad_id(tokenizer_path, self._sources.config),
        )

    def _broken(self, message: str) -> ModelBroken:
        return ModelBroken(f"Model {self._key} in {self._folder}: {message}", model=str(self._key))

    def _check_inputs(self) -> None:
        inputs = self._sources.graph.inputs
        names = {value.name for value in inputs}
        if "input_ids" not in names or not names <= _FED_INPUTS:
            raise self._broken(
                f"the graph takes {', '.join(sorted(names))}, but Penstock feeds input_ids, attention_mask "
                "and token_type_ids only. Export it as a text encoder."
            )
        kinds = {value.element_type for value in inputs}
        if kinds not in ({onnx_scan.INT64}, {onnx_scan.INT32}):
            raise self._broken("the graph's inputs must all be int64 or all be int32. Export it again.")

    def _task(self) -> Task:
        settings, config = self._sources.settings, self._sources.config
        if settings.task is not None:
            return Task(settings.task)
        if self._sources.modules.present:
            return Task.EMBED
        for architecture in config.architectures or ():
            for ending, task in _ARCHITECTURE_TASKS:
                if architecture.endswith(ending):
                    # A classifier of one label is how cross-encoders are exported.
                    is_reranker = (
                        task is Task.CLASSIFY and config.id2label is not None and len(config.id2label) == 1
                    )
                    return Task.RERANK if is_reranker else task
        raise self._broken(
            'nothing says what it computes (no known architecture in config.json). Set task = "embed", '
            f'"classify", "tag" or "rerank" in {SETTINGS_FILE}.'
        )

    def _output(self, task: Task) -> GraphValue:
        outputs = {value.name: value for value in self._sources.graph.outputs}
        wanted = self._sources.settings.output_name
        if wanted is not None:
            if wanted not in outputs:
                raise self._broken(
                    f"output_name = {wanted!r} is none of the graph's outputs ({', '.join(outputs)}). "
                    f"Correct {SETTINGS_FILE}."
                )
            return outputs[wanted]
        names: tuple[str, ...] = _VECTOR_OUTPUTS if task is Task.EMBED else _LOGIT_OUTPUTS
        if task is Task.EMBED and self._sources.settings.pooling not in (None, "none"):
            # The settings ask for pooling by Penstock, so an output that is pooled already will not do.
            names = names[1:]
        for name in names:
            if name in outputs:
                return outputs[name]
        return next(iter(outputs.values()))

    def _pooling(self, task: Task, output: GraphValue) -> Pooling:
        per_task: dict[Task, tuple[int, ...]] = {Task.EMBED: (2, 3), Task.TAG: (3,)}
        ranks = per_task.get(task, (2,))
        rank = len(output.shape)
        # Some exporters leave shapes out; the engine checks what really comes.
        if rank and rank not in ranks:
            raise self._broken(
                f"output {output.name!r} has {rank} dimensions, which does not fit task {task.value!r}. Set "
                f"output_name or task in {SETTINGS_FILE}."
            )
        if task is not Task.EMBED:
            return Pooling.NONE
        said = self._sources.settings.pooling
        if rank == 2:
            if said not in (None, "none"):
                raise self._broken(
                    f"pooling = {said!r}, but output {output.name!r} is one vector a text already."
                )
            return Pooling.NONE
        others = self._sources.modules.others
        if others:
            raise self._broken(
                f"modules.json has {', '.join(others)}, which the graph's token vectors lack. Export it with "
                "sentence-transformers so that the graph has a sentence_embedding output."
            )
        if said == "none":
            raise self._broken(
                f'pooling = "none", but output {output.name!r} is a vector a token. Say mean or cls.'
            )
        return Pooling(said) if said is not None else self._sources.modules.pooling or Pooling.MEAN

    def _width(self, task: Task, output: GraphValue) -> int:
        if output.shape and output.shape[-1] is not None:
            return output.shape[-1]
        settings, config = self._sources.settings, self._sources.config
        width = config.hidden_size if task is Task.EMBED else len(settings.labels or config.id2label or ())
        if not width:
            raise self._broken(
                "nothing says how wide its output is. Add hidden_size to config.json (embed), or labels to "
                f"{SETTINGS_FILE} (other tasks)."
            )
        return width

    def _labels(self, width: int) -> tuple[str, ...]:
        labels = (
            self._sources.settings.labels
            or self._config_labels()
            or tuple(f"LABEL_{i}" for i in range(width))
        )
        if len(labels) != width:
            raise self._broken(
                f"{len(labels)} labels for {width} outputs. Correct labels in {SETTINGS_FILE} or "
                "id2label in config.json."
            )
        if len(set(labels)) != width:
            raise self._broken(f"some labels are the same. Correct labels in {SETTINGS_FILE}.")
        return labels

    def _config_labels(self) -> tuple[str, ...]:
        by_id = self._sources.config.id2label or {}
        try:
            ids = sorted(by_id, key=int)
        except ValueError as err:
            raise self._broken("id2label in config.json has keys that are no numbers. Correct it.") from err
        return tuple(by_id[label_id] for label_id in ids)

    def _normalize(self) -> bool:
        said = self._sources.settings.normalize
        return self._sources.modules.normalize if said is None else said

    def _score_function(self, task: Task, width: int) -> ScoreFunction:
        if task is Task.EMBED:
            return ScoreFunction.NONE
        said = self._sources.settings.score_function
        if said is not None:
            return ScoreFunction(said)
        problem = self._sources.config.problem_type
        if problem == "regression":
            return ScoreFunction.NONE
        # As transformers' own pipeline does: softmax over one label would always be 1.
        is_sigmoid = problem == "multi_label_classification" or width == 1
        return ScoreFunction.SIGMOID if is_sigmoid else ScoreFunction.SOFTMAX

    def _tokens_max(self) -> int:
        positions = positions_max(self._sources.config)
        said = self._sources.settings.tokens_max
        if said is not None and positions is not None and said > positions:
            raise self._broken(
                f"tokens_max = {said}, but the model has positions for {positions} tokens only. Correct "
                f"{SETTINGS_FILE}."
            )
        if said is not None and said > TOKENS_MAX:
            raise self._broken(
                f"tokens_max = {said}, but no model may have rows of more than {TOKENS_MAX} tokens. Correct "
                f"{SETTINGS_FILE}."
            )
        limit = said or read_tokens_max(self._folder, self._sources.config) or _TOKENS_MAX_DEFAULT
        return min(limit, TOKENS_MAX if positions is None else positions, TOKENS_MAX)

    def _tokenizer_path(self) -> Path:
        for path in (self._folder / "tokenizer.json", self._onnx_path.parent / "tokenizer.json"):
            if path.is_file():
                return path
        raise self._broken(
            "it has no tokenizer.json. Write one with transformers: "
            f"`AutoTokenizer.from_pretrained(NAME).save_pretrained({str(self._folder)!r})`."
        )

    def _precision(self) -> str:
        kinds = self._sources.graph.weight_types
        return next((name for types, name in _PRECISIONS if kinds & types), "fp32")
