"""The tools apart from the measurements: tables, and the protocol of the peers."""

import pytest

from benchmarks import busy, peers, phases, scaling, table
from benchmarks.charts import draw_peers
from benchmarks.libraries import JAX, LIBRARIES, ONNX, ONNX_ALONE, OURS, OURS_BF16, TORCH, TORCH_BF16, libraries
from benchmarks.protocol import Job, parse_request, request_line
from benchmarks.table import MARKS, insert, markdown, marks, summary
from benchmarks.workloads import READING, SAMPLED, SAMPLING, TRAINING

BEGIN, END = marks(MARKS)
ABOUT = {"cpu": "a processor", "versions": {"fastlstm": "fastlstm 1", "torch": "PyTorch 2"}}
RESULT = {
    **ABOUT, "workload": "b1-h32", "verb": "train", "threads": 2, "precision": "fp32", "rounds": 5,
    "ours_ms": 0.25, "torch_ms": 1.0, "jax_ms": None,
    "ratio": 4.0, "chars_per_s": 256000.0, "share_of_peak": 0.25, "cores_of_others": 0.0,
}  # fmt: skip
POINT = {"varied": "H", "value": 16, "us": 1.0, "limit_us": 0.5, "gflops": 1.0, "share_of_peak": 0.5}


def test_table_has_a_column_for_each_library_that_was_measured():
    found = markdown([RESULT])
    assert "| workload | fastlstm ms | PyTorch ms | ratio | characters/s | of the peak |" in found
    assert "| b1-h32 | 0.25 | 1 | 4.00 | 256,000 | 25% |" in found
    assert "a processor, 2 threads, fp32, fastlstm 1, PyTorch 2, medians of 5 rounds in turn)" in found


def test_table_states_that_the_machine_was_busy():
    assert "other programs kept up to 0.7 cores busy" in markdown([{**RESULT, "cores_of_others": 0.7}])


def test_each_verb_has_a_separate_table():
    found = markdown([{**RESULT, "verb": "read"}, {**RESULT, "verb": "sample"}, RESULT])
    assert found.index("**Training") < found.index("**Sampling") < found.index("**Reading")


def test_the_summary_has_a_row_for_each_selected_workload_and_names_the_fastest_peer():
    sizes = {"L": 2, "H": 128, "B": 50, "T": 64}
    training = RESULT | {"workload": "b50-h128", "sizes": sizes, "fastest_peer": "torch", "torch_ms": 1.0}
    sampling = training | {"verb": "sample", "workload": "h256", "fastest_peer": "onnx_bound", "rounds": 9}
    found = summary([sampling, RESULT | {"workload": "other"}, training | {"bf16_chars_per_s": 3e5}])
    assert "medians of 5 or 9 rounds in turn)" in found
    assert found.splitlines()[2:] == [
        "|  | fastest peer | fastlstm ms | ratio | characters/s | bf16 characters/s |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| training step 2x128, 50 x 64 characters | PyTorch | 0.25 | 4.00 | 256,000 | 300,000 |",
        "| sampling 2x128, 200 characters | ONNX Runtime bound | 0.25 | 4.00 | 256,000 |  |",
    ]


def test_tables_are_put_into_their_documents(tmp_path):
    (tmp_path / "docs").mkdir()
    for place in table.PLACES:
        begin, end = marks(place.marks)
        (tmp_path / place.document).write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    table.write([RESULT | {"sizes": {"L": 1, "H": 32, "B": 1, "T": 64}, "fastest_peer": "torch"}], tmp_path)
    assert "**Training, one step**" in (tmp_path / "docs" / "performance.md").read_text()
    assert "| training step 1x32, 1 x 64 characters | PyTorch | 0.25 |" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text("no marks")
    with pytest.raises(ValueError, match=r"README\.md: there is no <!-- benchmark-summary:begin -->"):
        table.write([], tmp_path)


def test_the_time_with_one_thread_is_in_parentheses():
    alone = {**RESULT, "verb": "sample", "ours_1_thread_ms": 0.5}
    found = markdown([alone, {**RESULT, "verb": "sample", "workload": "b1-h100"}])
    assert "| workload | fastlstm ms (1 thread) | PyTorch ms | ratio |" in found
    assert "| b1-h32 | 0.25 (0.5) | 1 |" in found
    assert "| b1-h100 | 0.25 | 1 |" in found


def test_a_column_that_repeats_another_is_left_out():
    assert "ONNX" not in markdown([{**RESULT, "ratio_onnx": 4.0}])
    assert "| ratio | ratio to ONNX Runtime | characters/s |" in markdown([{**RESULT, "ratio_onnx": 5.0}])


def measured(verb, **milliseconds):
    """A result of two rounds, in each of which a library's time is that given by the name of its field."""
    times = {library: [milliseconds[library.field]] * 2 for library in LIBRARIES if library.field in milliseconds}
    bf16_peaks = [400.0, 400.0] if OURS_BF16 in times else []
    rounds = peers.Rounds(times, [200.0, 200.0], bf16_peaks, [0.0])
    workload = {"train": TRAINING, "sample": SAMPLING, "read": READING}[verb]
    name = next(iter(workload))
    return peers.result(name, verb, workload[name], 2, rounds)


def test_ratios_are_of_the_fastest_float32_peer_and_of_each_kind_of_peer():
    found = measured(
        "sample", ours_ms=2.0, ours_1_thread_ms=1.0, ours_bf16_ms=1.0, torch_ms=60.0, torch_bf16_ms=30.0, onnx_ms=20.0,
        onnx_1_thread_ms=16.0, onnx_bound_ms=8.0,
    )  # fmt: skip
    assert (found["ratio"], found["fastest_peer"]) == (4.0, "onnx_bound")
    assert (found["ratio_onnx"], found["ratio_onnx_bf16"]) == (8.0, 16.0)
    assert (found["ratio_bf16"], found["ratio_bf16_float32"], found["ours_float32_over_bf16"]) == (30.0, 8.0, 2.0)


def test_each_precision_is_compared_with_its_own_peak():
    found = measured("train", ours_ms=2.0, ours_bf16_ms=1.0)
    gflops = 1e-6 * TRAINING["b1-h32"].step_flops
    assert found["share_of_peak"] == pytest.approx(gflops / 2 / 200)
    assert found["bf16_share_of_peak"] == pytest.approx(gflops / 400)
    assert found["bf16_chars_per_s"] == 2 * found["chars_per_s"]


def test_without_peers_and_bf16_their_values_are_unknown():
    found = measured("read", ours_ms=2.0)
    assert [key for key in found if key.startswith("bf16_")] == []
    assert {key: value for key, value in found.items() if "ratio" in key} == dict.fromkeys(
        ["ratio", "ratio_bf16", "ratio_bf16_float32", "ratio_onnx", "ratio_onnx_bf16"]
    )
    assert [line.count("|") for line in markdown([found | ABOUT]).splitlines()[-3:]] == [5, 5, 5]


def test_the_characters_of_a_call_depend_on_the_verb():
    assert measured("sample", ours_ms=1.0)["chars"] == SAMPLED
    assert measured("read", ours_ms=1.0)["chars"] == 256
    assert measured("train", ours_ms=1.0)["chars"] == TRAINING["b1-h32"].chars


def test_bf16_is_measured_only_if_asked_for_and_each_library_only_for_its_verbs():
    assert libraries("train", bf16=False) == [OURS, TORCH, JAX]
    assert libraries("train", bf16=True) == [OURS, TORCH, JAX, OURS_BF16, TORCH_BF16]
    assert {ONNX, ONNX_ALONE} < set(libraries("read", bf16=False))
    assert JAX not in libraries("sample", bf16=True)


def test_insert_replaces_what_is_between_the_marks_and_nothing_else():
    assert insert(f"a\n{BEGIN}\nold\n{END}\nb\n", "new") == f"a\n{BEGIN}\nnew\n{END}\nb\n"


@pytest.mark.parametrize("document", ["", BEGIN, f"{END} {BEGIN}"])
def test_insert_refuses_a_document_without_marks(document):
    with pytest.raises(ValueError, match="there is no"):
        insert(document, "new")


def test_the_table_of_a_busy_machine_has_a_figure_for_each_run():
    result = {"workload": "b1-h32", "situation": "idle", "ratio": 1.0}
    found = busy.markdown([[result, {**result, "situation": "busy"}], [{**result, "ratio": 0.912}]])
    assert "| default threads / one thread | b1-h32 |" in found
    assert found.endswith("| idle | 1.00, 0.91 |\n| busy | 1.00 |")
    assert insert("<!-- busy:begin --><!-- busy:end -->", found, "busy").count(found) == 1


def test_competitors_end_with_the_situation():
    with busy.competition(busy.Situation("two", 2, nice=19)):
        pass
    measured = busy.compare("sampling h128", busy.SITUATIONS[1], 0.01, 1)
    assert measured["ratio"] == measured["chars_per_s"] / measured["one_thread_chars_per_s"]


def test_a_request_line_is_parsed_back_to_its_request():
    job = Job("train", TRAINING["b1-h100"], 2, "bf16")
    assert parse_request(request_line(job, 0.5)) == (job, 0.5)


def test_step_flops_are_three_times_those_of_all_products_forward():
    V, E, H, L, T, B = TRAINING["b50-h128"][:6]
    products = T * B * (4 * H * (E + H) + (L - 1) * 4 * H * 2 * H + H * V)
    assert TRAINING["b50-h128"].step_flops == 3 * 2 * products


def test_scaling_varies_every_size_when_none_is_named(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(scaling, "measure", lambda varied, value, threads, seconds: asked.append(varied) or POINT)
    scaling.main(["--threads", "2"])
    assert list(dict.fromkeys(asked)) == ["H", "B", "T", "L", "V", "threads"]
    assert "us per character" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        scaling.main(["speed"])


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        (scaling, ["--threads", "0"]), (phases, ["b1-h32", "--json", "missing/folder.json"]),
        (busy, ["--rounds", "0"]), (peers, ["--rounds", "none"]), (peers, ["--png", "missing/folder.png"]),
        (table, ["missing.json"]),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_reported_before_anything_is_measured(tool, arguments, capsys):
    with pytest.raises(SystemExit) as left:
        tool.main(arguments)
    assert left.value.code == 2
    assert "error: argument" in capsys.readouterr().err


def test_every_library_of_the_table_can_be_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    result = {
        **RESULT,
        **{library.field: 1.0 for library in LIBRARIES},
        "chars": 64,
        "limit_chars_per_s": 1e6,
        "bf16_limit_chars_per_s": 2e6,
    }
    draw_peers([result], tmp_path / "peers.png")
    assert (tmp_path / "peers.png").stat().st_size > 1000
