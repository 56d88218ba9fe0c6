"""The table of `eval suite`, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rsicd_embed.reports.evaluation_types import SuiteResult

COLUMNS = {
    "zeroshot_top1": "zero-shot top-1",
    "zeroshot_top5": "top-5",
    "i2t_r1": "i2t R@1",
    "t2i_r1": "t2i R@1",
    "mr": "mR",
    "mr_argsort": "mR, argsort",
    "linear_top1": "linear probe",
    "knn_top1": "nearest neighbours",
}
SEEN = (
    "seen: * images of the dataset were in the training data, ? unknown; "
    "argsort: ties rank in the dataset's order, as in many papers"
)


def suite_rows(results: Sequence[SuiteResult]) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """A title and rows, with a header, for each dataset: a model per row, with intervals."""
    for dataset, split in dict.fromkeys((each["dataset"], each["split"]) for each in results):
        group = [each for each in results if (each["dataset"], each["split"]) == (dataset, split)]
        names = [name for name in COLUMNS if any(name in each["metrics"] for each in group)]
        rows = [("model", "seen", *(COLUMNS[name] for name in names))]
        for each in group:
            mark = {True: "*", False: "", None: "?"}[each["seen"]]
            rows.append((each["model"], mark, *(_cell(each, name) for name in names)))
        yield f"{dataset} {split} ({group[0]['n']:,} images)", rows


def _cell(result: SuiteResult, name: str) -> str:
    value, interval = result["metrics"].get(name), result["intervals"].get(name)
    if value is None:
        return ""
    return f"{value:.3f}" + (f" ({interval[0]:.3f}–{interval[1]:.3f})" if interval else "")
