"""Liveness, readiness and metrics: for load balancers, orchestrators and Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from api.http.schemas import Health
from api.metrics import CONTENT_TYPE
from api.service import CompletionService


def health_routes(service: CompletionService) -> APIRouter:
    """The routes over `service`."""
    router = APIRouter(tags=["operations"])

    @router.get("/health/live", summary="Is the process alive?")
    async def live() -> Health:
        """Always 200 with the phase: a server that answers is alive."""
        return Health(status=service.host.phase)

    @router.get(
        "/health/ready",
        summary="Does the server admit requests?",
        response_model=Health,
        responses={503: {"model": Health, "description": "Not now; the body says why."}},
    )
    async def ready() -> Response:
        """200 from when every shape is compiled until the server stops; otherwise 503."""
        phase = service.host.phase
        return JSONResponse({"status": phase}, 200 if phase == "ready" else 503)

    @router.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Requests, latencies, queue, cache and compilations, in Prometheus' text format."""
        return Response(service.metrics.render(), headers={"content-type": CONTENT_TYPE})

    return router
