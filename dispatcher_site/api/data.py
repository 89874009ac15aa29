"""The data endpoints as a ninja API: validation, OpenAPI and docs of what the front answers."""

from __future__ import annotations

from ninja import NinjaAPI

data_api = NinjaAPI(title="Shardpoint", docs_url="/docs", openapi_url="/openapi.json")
