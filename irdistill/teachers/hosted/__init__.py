"""Rerankers and embedding models behind servers: one client, the shapes of several interfaces."""

from __future__ import annotations

from irdistill.teachers.hosted.hosted_card import HostedServerCard, RequestLimits

__all__ = ["HostedServerCard", "RequestLimits"]
