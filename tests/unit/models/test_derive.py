"""What is derived of a model folder, and the errors that say how to mend one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from penstock_server.domain.errors import ModelBroken
from penstock_server.domain.model import ModelManifest, Pooling
from penstock_server.domain.tasks import ScoreFunction, Task, Truncation
from penstock_server.models.derive import derive_manifest
from tests.support.reference_model_tiny import KEY, write_model

BERT = {"architectures": ["BertModel"], "hidden_size": 4, "max_position_embeddings": 512}
CLASSIFIER = {"architectures": ["BertForSequenceClassification"], "max_position_embeddings": 512}
MODULES = [
    {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]
NORMALIZE = {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}


def derive(folder: Path, **options: Any) -> ModelManifest:
    return derive_manifest(KEY, write_model(folder, **options))


def test_sentence_transformers_folder_needs_no_settings(tmp_path: Path) -> None:
    manifest = derive(
        tmp_path,
        files={
            "config.json": {**BERT, "pad_token_id": 3},
            "modules.json": [*MODULES, NORMALIZE],
            "1_Pooling/config.json": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
            "sentence_bert_config.json": {"max_seq_length": 256},
            "tokenizer_config.json": {"model_max_length": 128},
        },
    )
    assert (manifest.task, manifest.pooling, manifest.normalize) == (Task.EMBED, Pooling.CLS, True)
    assert (manifest.tokens_max, manifest.width, manifest.pad_id) == (256, 4, 3)
    assert (manifest.truncation, manifest.precision) == (Truncation.RIGHT, "fp32")
    assert manifest.labels == ()


def test_manifest_survives_pickling(tmp_path: Path) -> None:
    manifest = derive(tmp_path, files={"config.json": BERT})
    assert pickle.loads(pickle.dumps(manifest)) == manifest


def test_newer_pooling_files_are_read(tmp_path: Path) -> None:
    files = {"modules.json": MODULES, "1_Pooling/config.json": {"pooling_mode": "mean"}}
    assert derive(tmp_path, files=files).pooling is Pooling.MEAN


def test_bare_encoder_is_pooled_by_mean_and_not_normalised(tmp_path: Path) -> None:
    manifest = derive(tmp_path, files={"config.json": BERT})
    assert (manifest.task, manifest.pooling, manifest.normalize) == (Task.EMBED, Pooling.MEAN, False)


def test_graph_that_pools_itself_is_left_alone(tmp_path: Path) -> None:
    manifest = derive(tmp_path, files={"config.json": BERT}, shape="vectors")
    assert (manifest.pooling, manifest.output_name) == (Pooling.NONE, "sentence_embedding")


@pytest.mark.parametrize(
    ("config", "task", "function"),
    [
        ({"id2label": {"1": "b", "0": "a"}}, Task.CLASSIFY, ScoreFunction.SOFTMAX),
        (
            {"id2label": {"0": "a", "1": "b"}, "problem_type": "multi_label_classification"},
            Task.CLASSIFY,
            ScoreFunction.SIGMOID,
        ),
        ({"id2label": {"0": "a", "1": "b"}, "problem_type": "regression"}, Task.CLASSIFY, ScoreFunction.NONE),
    ],
)
def test_classifiers_are_known_by_their_config(
    tmp_path: Path, config: dict[str, Any], task: Task, function: ScoreFunction
) -> None:
    manifest = derive(tmp_path, shape="logits", width=2, files={"config.json": {**CLASSIFIER, **config}})
    assert (manifest.task, manifest.labels, manifest.score_function) == (task, ("a", "b"), function)


def test_cross_encoder_of_one_label_reranks(tmp_path: Path) -> None:
    files = {"config.json": {**CLASSIFIER, "id2label": {"0": "LABEL_0"}}}
    manifest = derive(tmp_path, shape="logits", width=1, files=files)
    assert (manifest.task, manifest.score_function) == (Task.RERANK, ScoreFunction.SIGMOID)


def test_token_classifier_tags(tmp_path: Path) -> None:
    config = {"architectures": ["BertForTokenClassification"], "id2label": {"0": "O", "1": "B"}}
    manifest = derive(tmp_path, width=2, output="logits", files={"config.json": config})
    assert (manifest.task, manifest.labels) == (Task.TAG, ("O", "B"))


def test_settings_win_over_everything(tmp_path: Path) -> None:
    settings = """
        task = "embed"
        tokens_max = 99
        truncation = "error"
        pooling = "cls"
        normalize = true
        output_name = "states"
        onnx = "graphs/small.onnx"
        precision = "fp16"
    """
    files = {
        "config.json": CLASSIFIER,
        "modules.json": MODULES,
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": 256},
    }
    manifest = derive(tmp_path, settings=settings, files=files, graph="graphs/small.onnx", output="states")
    assert (manifest.tokens_max, manifest.truncation) == (99, Truncation.ERROR)
    assert (manifest.pooling, manifest.normalize) == (Pooling.CLS, True)
    assert (manifest.output_name, manifest.onnx_path.name) == ("states", "small.onnx")
    assert manifest.precision == "fp16"


@pytest.mark.parametrize(
    ("files", "tokens_max"),
    [
        ({"tokenizer_config.json": {"model_max_length": 128}}, 128),
        ({"tokenizer_config.json": {"model_max_length": 1e30}, "config.json": {**BERT}}, 512),
        ({"tokenizer_config.json": {"model_max_length": 10**30}}, 512),
        ({"tokenizer_config.json": {"model_max_length": 900}, "config.json": {**BERT}}, 512),
        ({"config.json": {**BERT, "model_type": "roberta", "max_position_embeddings": 514}}, 512),
        ({}, 512),
    ],
)
def test_token_limit_is_the_first_that_is_believable(
    tmp_path: Path, files: dict[str, Any], tokens_max: int
) -> None:
    assert derive(tmp_path, settings='task = "embed"', files=files).tokens_max == tokens_max


def test_pad_id_comes_from_the_tokenizer_if_the_config_is_silent(tmp_path: Path) -> None:
    tokenizer = {"padding": None, "added_tokens": [{"id": 5, "content": "<pad>"}]}
    assert derive(tmp_path, settings='task = "embed"', files={"tokenizer.json": tokenizer}).pad_id == 5


def test_graph_below_onnx_is_found(tmp_path: Path) -> None:
    assert (
        derive(tmp_path, files={"config.json": BERT}, graph="onnx/model.onnx").onnx_path.parent.name == "onnx"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": "tokens_mx = 3"}, r"unknown key 'tokens_mx'.*tokens_max"),
        ({"settings": "tokens_max = 0"}, r"penstock\.toml: .*>= 1.*tokens_max"),
        ({"settings": 'pooling = "max"'}, r"penstock\.toml: .*pooling"),
        ({"settings": "task ="}, "not readable TOML"),
        ({"settings": 'onnx = "../model.onnx"'}, "no file in that folder"),
        ({"settings": 'onnx = "none.onnx"'}, "no file in that folder"),
        ({}, "Set task ="),
        (
            {"settings": 'task = "embed"\noutput_name = "x"'},
            r"none of the graph's outputs \(last_hidden_state\)",
        ),
        ({"settings": 'task = "classify"'}, "does not fit task 'classify'"),
        ({"settings": 'task = "embed"\npooling = "none"'}, "Say mean or cls"),
        ({"settings": 'task = "embed"\npooling = "cls"', "shape": "vectors"}, "one vector a text already"),
        (
            {"settings": 'task = "classify"\nlabels = ["a"]', "shape": "logits", "width": 2},
            "1 labels for 2 outputs",
        ),
        (
            {"settings": 'task = "classify"\nlabels = ["a", "a"]', "shape": "logits", "width": 2},
            "labels are the same",
        ),
        (
            {"settings": 'task = "embed"', "inputs": ("input_ids", "pixel_values")},
            "takes input_ids, pixel_values",
        ),
        ({"settings": 'task = "embed"', "declared_width": "wide"}, "Add hidden_size"),
        (
            {"settings": 'task = "embed"\ntokens_max = 513', "files": {"config.json": BERT}},
            "positions for 512 tokens only",
        ),
        (
            {"files": {"modules.json": MODULES, "1_Pooling/config.json": {"pooling_mode_max_tokens": True}}},
            "asks for pooling max",
        ),
        ({"files": {"modules.json": [*MODULES, {"type": "x.Dense", "path": "2_Dense"}]}}, "has Dense"),
        ({"files": {"config.json": ["no object"]}}, r"config\.json cannot be read"),
    ],
)
def test_contradictions_are_errors_that_say_what_to_do(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelBroken, match=message):
        derive(tmp_path, **options)


def test_folder_without_a_graph_says_how_to_export_one(tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match="optimum-cli export onnx"):
        derive_manifest(KEY, tmp_path)


def test_one_graph_of_another_name_is_taken_and_two_are_not(tmp_path: Path) -> None:
    folder = write_model(tmp_path, settings='task = "embed"', graph="encoder.onnx")
    assert derive_manifest(KEY, folder).onnx_path.name == "encoder.onnx"
    write_model(tmp_path, settings='task = "embed"', graph="onnx/other.onnx")
    with pytest.raises(ModelBroken, match=r"encoder\.onnx, onnx/other\.onnx.*Set onnx"):
        derive_manifest(KEY, folder)


def test_folder_without_a_tokenizer_says_how_to_write_one(tmp_path: Path) -> None:
    folder = write_model(tmp_path, settings='task = "embed"')
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelBroken, match="save_pretrained"):
        derive_manifest(KEY, folder)
