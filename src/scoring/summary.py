"""The scoring room's words: the score table as plain text for 120 columns."""

from scoring.blending import Blend
from scoring.decoders import Task


def score_table(blend: Blend, task: Task, notes: dict[str, str]) -> list[str]:
    """Lines of the table of candidates: in-sample, cross-fitted, the spread of the latter over row resamples.

    Args: notes: a remark by run name, shown at the end of its line.
    """
    width = max(len(candidate.name) for candidate in blend.candidates)
    lines = [f"  {task.metric:{width}}  in-sample  cross-fitted  +- rows  "]
    for position, candidate in enumerate(blend.candidates):
        mark = ">" if position == blend.chosen else " "
        note = notes.get(candidate.name.split(" + ")[0], "")
        lines.append(
            f"{mark} {candidate.name:{width}}  {abs(candidate.in_sample):9.4f}  {abs(candidate.score):12.4f}"
            f"  {blend.drawn[:, position].std():7.4f}  {note}".rstrip()
        )
    return lines
