"""The guards' request fields and reports as messages and back, for the server and its clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict

from api.grpc.talipot.v1 import generation_pb2 as pb
from api.guard_fields import GuardFields, checked_memorization, checked_safety


def to_guard_fields(request: pb.GenerateRequest, *, may_loosen: bool) -> GuardFields:
    """What a request asks of the guards; `may_loosen` is what its API key may.

    Raises:
        RequestError: A field is absent or out of range; `param` is "safety" or "memorization".
    """
    safety = memorization = None
    if request.HasField("safety"):
        safety = checked_safety(_given(request.safety))
    if request.HasField("memorization"):
        memorization = checked_memorization(_given(request.memorization))
    return GuardFields(safety=safety, memorization=memorization, may_loosen=may_loosen)


def from_checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Checked fields of a policy as those of its message."""
    labels = fields.get("labels")
    return dict(fields) if labels is None else {**fields, "labels": sorted(labels)}


def set_reports(
    message: pb.GenerateResponse | pb.Choice, reports: Mapping[str, dict[str, Any]] | None
) -> None:
    """Put what guards found into a choice's message."""
    for name, report in (reports or {}).items():
        if name == "safety":
            message.safety.CopyFrom(_safety(report))
        elif name == "memorization":
            message.memorization.CopyFrom(_memorization(report))


def report_dicts(choice: pb.Choice) -> dict[str, Any]:
    """The reports of a choice as JSON values, by their names."""
    found: dict[str, Any] = {}
    for name in ("safety", "memorization"):
        if choice.HasField(name):
            found[name] = MessageToDict(
                getattr(choice, name),
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
    return found


def _given(message: pb.SafetyOptions | pb.MemorizationOptions) -> dict[str, Any]:
    """The fields that are set, as plain values."""
    return {
        field.name: list(value) if field.is_repeated else value
        for field, value in message.ListFields()
    }


def _safety(report: Mapping[str, Any]) -> pb.SafetyReport:
    prompt = report["prompt"]
    return pb.SafetyReport(
        action=report["action"],
        verdict=report["verdict"],
        scores=report["scores"] or {},
        threshold=report["threshold"],
        spans=[pb.SafetySpan(**span) for span in report["spans"]],
        reasons=report["reasons"],
        prompt=None if prompt is None else pb.PromptSafety(**prompt),
        scorer_name=report["scorer"]["name"],
        scorer_version=report["scorer"]["version"],
    )


def _memorization(report: Mapping[str, Any]) -> pb.MemorizationReport:
    fields = {name: value for name, value in report.items() if value is not None}
    return pb.MemorizationReport(**fields)
