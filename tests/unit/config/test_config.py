from __future__ import annotations

from pathlib import Path

import pytest

from penstock_server.config import load_config
from penstock_server.domain.errors import InvalidRequest


def write(folder: Path, text: str) -> Path:
    path = folder / "penstock.toml"
    path.write_text(text)
    return path


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, 'port = 1234\nmodels_dir = "m"\n[requests]\nrows_max = 7\n')
    config = load_config(path, port=99, host=None)
    assert (config.port, config.models_dir, config.requests.rows_max) == (99, Path("m"), 7)
    assert (config.host, config.requests.text_bytes_max) == ("127.0.0.1", 1 << 20)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1\n", "prot"),
        ("[requests]\nrows = 1\n", "rows"),
        ('port = "x"\n', "port"),
        ("port = 70000\n", "port"),
        ("not toml", "Cannot read"),
        ("[lanes]\nlive_batch_tokens_max = 99999\n", "live_tokens_max"),
        ("[requests]\ntext_bytes_max = 99999999\n", "message_bytes_max"),
        ('host = "0.0.0.0"\n', "TLS"),
        ("[bulk]\nwindows_in_memory_max = 0\n", "windows_in_memory_max"),
        ("[requests]\ntext_bytes_max = -5\n", "text_bytes_max"),
        ("[lanes]\nbulk_lanes = 100000\n", "bulk_lanes"),
        ("[lanes]\nlookahead_rows = 0\n", "lookahead_rows"),
        ("[text]\ntokenizer_cache_bytes = 0\n", "text.tokenizer_cache_bytes must be from 1"),
        ("[text]\ntokenizer_cache_bytes = 1073741825\n", "cache_bytes must be from 1 to 1,073,741,824"),
        ("[bulk]\njobs_running_max = 1025\n", "jobs_running_max must be from 1 to 1,024"),
        ("[text]\ntokenizer_threads = 0\n", "text.tokenizer_threads must be from 1 to 1,024"),
        ("[text]\ntokenizer_cache = 1\n", "tokenizer_cache"),
        ("[metrics]\nport = 70000\n", "metrics.port"),
        ('[metrics]\nhost = "0.0.0.0"\n', "metrics.host"),
        ("[metrics]\ntenants_max = -1\n", "metrics.tenants_max"),
        ('[[routing]]\nrequest_class = "flex"\n', "name"),
        ('[[routing]]\nname = "a"\nrequest_class = "urgent"\n', "urgent"),
        ('[[routing]]\nname = "a"\nclass = "flex"\n', "class"),
        ('[[routing]]\nname = "a"\n', r"routing rule 1 \('a'\) decides nothing"),
        ('[[routing]]\nname = "a"\nrequest_class = "flex"\nsampling_rate = 0\n', "sampling_rate"),
        ('[[routing]]\nname = "a"\nrequest_class = "flex"\nrows_min = 3\nrows_max = 2\n', "rows_max"),
        ('[[routing]]\nname = "a"\nrequest_class = "flex"\nmetadata = { X-A = "1" }\n', "lower case"),
        ('[[routing]]\nname = "a"\ncheaper_version = "1"\n', "name it in models"),
        ('[[routing]]\nname = "a"\nrequest_class = "flex"\n' * 2, "a name of its own"),
        ("[tenants.default]\nweight = 0\n", r"tenants\.default\.weight"),
        ("[tenants.named.a]\ntokens_per_s = -1\n", r"tenants\.named\.a\.tokens_per_s"),
        ("[tenants.named.a]\ntokens_per_s = nan\n", r"tenants\.named\.a\.tokens_per_s"),
        ("[tenants.default]\nburst_tokens = 9\n", "burst_tokens needs tokens_per_s"),
        ("[tenants.named.a]\nshare = 1\n", "share"),
        ("[lanes]\nbulk_share = 0.9\n", "lanes.bulk_share"),
        ("[lanes]\nbulk_beside_flex = 0.6\n", "lanes.bulk_beside_flex must be from 0"),
        ('[lanes]\nkind = "both"\n', "kind"),
        ('[lanes]\nkind = "serial"\nbulk_lanes = 2\n', "bulk_lanes has no meaning"),
        ("[lanes.serial]\nblock_us = 0\n", "lanes.serial.block_us must be from 1 to"),
        ("[lanes.serial]\nfill_us_max = 60000001\n", "lanes.serial.fill_us_max must be from 1 to 60,000,000"),
        ("[lanes.serial]\nbind_ahead_us = 20000\n", "bind_ahead_us must be below block_us"),
        ("[lanes.serial]\nfill_us_max = 19999\n", "fill_us_max must be at least block_us"),
        ("drain_grace_s = inf\n", "drain_grace_s"),
        ("drain_grace_s = nan\n", "drain_grace_s"),
    ],
)
def test_wrong_configuration_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        load_config(write(tmp_path, text))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"absent\.toml"):
        load_config(tmp_path / "absent.toml")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1.2.3", "[::1]"])
def test_loopback_needs_no_tls(host: str) -> None:
    assert load_config(host=host).host == host


def test_other_hosts_need_tls_or_the_users_word() -> None:
    assert load_config(host="0.0.0.0", allow_insecure=True).host == "0.0.0.0"


def test_every_thread_that_tokenises_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "[text]\ntokenizer_threads = 5\n[bulk]\njobs_running_max = 3\n")
    assert load_config(path).tokenising_threads() == 9
