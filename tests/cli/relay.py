"""An order that wants a payment and hears that it was made, and a check that asks how the order stands."""

from __future__ import annotations

from pydantic import BaseModel

from engine import (
    Application,
    Event,
    Final,
    Publish,
    Question,
    State,
    StepFailed,
    Workflow,
    answers,
    ask,
    enter,
    on,
    publish,
    runs,
)


class Ordered(Event, key="order"):
    order: str


class PaymentWanted(Event, key="payment"):
    payment: str


class Released(Event, key="payment"):
    payment: str


class PaymentMade(Event, key="order"):
    order: str


class Standing(BaseModel, frozen=True):
    state: str = ""


class StateAsked(Question[Standing], key="order"):
    order: str


class Ordering(State, endless=True):
    order: str

    @enter
    def want(self) -> Publish:
        return publish(PaymentWanted(payment=self.order))

    @on
    def paid(self, event: PaymentMade) -> Thanked:
        return Thanked(order=self.order)

    @answers
    def stands(self, question: StateAsked) -> Standing:
        return Standing(state="ordering")


class Thanked(State, endless=True):
    order: str

    @answers
    def stands(self, question: StateAsked) -> Standing:
        return Standing(state="thanked")


def begin(event: Ordered) -> Ordering:
    return Ordering(order=event.order)


class Waiting(State, endless=True):
    payment: str

    @on
    def released(self, event: Released) -> tuple[Paid, Publish]:
        return Paid(), publish(PaymentMade(order=self.payment))


class Paid(Final):
    pass


def want(event: PaymentWanted) -> Waiting:
    return Waiting(payment=event.payment)


class Checked(Event, key="check"):
    check: str


asks_state = ask(StateAsked)


class Checking(State):
    check: str

    @runs(asks_state)
    def asking(self) -> StateAsked:
        return StateAsked(order=self.check)

    @asking.done
    def told(self, standing: Standing) -> Known:
        return Known(state=standing.state)

    @asking.failed
    def silent(self, failure: StepFailed) -> Known:
        return Known(state=failure.type)


class Known(Final):
    state: str


def check(event: Checked) -> Checking:
    return Checking(check=event.check)


app = Application(
    workflows=[
        Workflow("order", start=begin, states=[Ordering, Thanked]),
        Workflow("payment", start=want, states=[Waiting, Paid]),
        Workflow("check", start=check, states=[Checking, Known]),
    ]
)
