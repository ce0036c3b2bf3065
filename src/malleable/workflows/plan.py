"""Where an operation goes next: pure decisions, apart from the engine that carries them out."""

from dataclasses import dataclass

from malleable.domain.errors import MalleableError
from malleable.domain.operations import Direction, Operation
from malleable.workflows.steps import Step, StepFunction, Workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A step to walk in a direction."""

    step: Step
    direction: Direction

    @property
    def function(self) -> StepFunction:
        function = self.step.do if self.direction is Direction.DO else self.step.undo
        if function is None:
            raise AssertionError(f"step {self.step.name} has no {self.direction}")
        return function


class UnknownStep(MalleableError):
    """This version of the software does not know the step at hand."""

    code = "unknown-step"


def current(workflow: Workflow, operation: Operation) -> Place | None:
    """Find the place of an operation; None when there is nothing (more) to walk. Errors: UnknownStep."""
    if not operation.step:
        return _onward(workflow, operation, 0) if operation.direction is Direction.DO else None
    index = _index(workflow, operation.step)
    step = workflow.steps[index]
    if operation.direction is Direction.UNDO and step.undo is None:
        return _back(workflow, operation, index - 1)
    return Place(step=step, direction=operation.direction)


def following(workflow: Workflow, operation: Operation, place: Place) -> Place | None:
    """Find the place after a finished one; None at the end."""
    index = _index(workflow, place.step.name)
    if place.direction is Direction.DO:
        return _onward(workflow, operation, index + 1)
    return _back(workflow, operation, index - 1)


def unwinding(workflow: Workflow, operation: Operation) -> Place | None:
    """Find where undoing begins: at the step at hand itself, because what it did is not known."""
    return _back(workflow, operation, _index(workflow, operation.step)) if operation.step else None


def _index(workflow: Workflow, name: str) -> int:
    for index, step in enumerate(workflow.steps):
        if step.name == name:
            return index
    raise UnknownStep(
        f"The operation stands at step {name!r}, which workflow {workflow.name!r} no longer has.",
        fix="Run it with the version that began it, or cancel it and clean up by hand.",
    )


def _onward(workflow: Workflow, operation: Operation, start: int) -> Place | None:
    for step in workflow.steps[start:]:
        if step.needed(operation):
            return Place(step=step, direction=Direction.DO)
    return None


def _back(workflow: Workflow, operation: Operation, start: int) -> Place | None:
    for index in range(start, -1, -1):
        step = workflow.steps[index]
        if step.undo is not None and step.needed(operation):
            return Place(step=step, direction=Direction.UNDO)
    return None
