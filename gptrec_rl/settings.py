"""What all settings have in common: they are immutable, their numbers have bounds, and an unknown key is an error."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Size = Annotated[int, Field(gt=0, le=2**16)]
"""How many of what takes memory there are."""
Count = Annotated[int, Field(gt=0, le=2**53)]
Positive = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""What both NumPy and PyTorch take."""


class Settings(BaseModel):
    """Base of all: immutable, all numbers finite, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"it is {str(value).lower()}, which is no number and no text")
        return value
