"""The same world, whose form was changed so that what is stored of it cannot be read."""

from __future__ import annotations

from engine import Application, Final, State, Workflow, after, on
from tests.flink.world import Filled, Signed, account, notebook, order, sleeper, trial, trouble


class Form(State):
    id: str
    pages: int

    @on
    def signed(self, event: Signed) -> Filed:
        return Filed(by=event.by)

    @after(days=3650)
    def lapsed(self) -> Filed:
        return Filed(by="nobody")


class Filed(Final):
    by: str


def fill(event: Filled) -> Form:
    return Form(id=event.id, pages=1)


form = Workflow("form", start=fill, states=[Form, Filed])

application = Application(workflows=[order, account, trouble, trial, sleeper, form], resources={"notebook": notebook})
