"""Words for failed requests to object stores, from the texts that libraries put into errors.

Those texts quote URLs, headers and documents of the server, and never reach the user themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

ANONYMOUS = "RSICD_EMBED_ANONYMOUS"
CREDENTIALS = {
    "s3": "AWS (environment, profile or instance role)",
    "gs": "Google Cloud (GOOGLE_APPLICATION_CREDENTIALS, gcloud or the machine's account)",
    "az": "Azure (AZURE_STORAGE_ACCOUNT_NAME with a key, a token or a managed identity)",
}
_EXPIRED = {"ExpiredToken", "RequestExpired", "TokenRefreshRequired", "InvalidToken"}
_REFUSED = {
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthorizationHeaderMalformed"),
    *("AuthenticationFailed", "InvalidSecurity", "Unauthenticated", "NoAuthenticationInformation"),
}


class FailureKind(Enum):
    """What a failed request means for others."""

    MISSING = auto()  # there is no such object
    CHANGED = auto()  # it has another ETag
    ACCESS = auto()  # no object of the bucket can be read
    TRANSIENT = auto()  # another attempt may succeed
    OTHER = auto()


@dataclass(frozen=True)
class RequestFailure:
    """Why a request failed, in words."""

    kind: FailureKind
    reason: str


def request_failure(text: str, place: str) -> RequestFailure | None:
    """Recognises the cause of a failed request.

    Args:
        text: the message of an error.
        place: scheme and bucket, such as `s3://tiles`.

    Returns:
        The cause; None for an unknown one.
    """
    named = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status(?: code)?: (\d{3})", text)
    code = named[1] if named else status[1] if status else ""
    credentials = CREDENTIALS.get(place.partition(":")[0], "the provider")
    access = FailureKind.ACCESS
    if code in ("NoSuchBucket", "ContainerNotFound") or "bucket does not exist" in text:
        return RequestFailure(access, f"there is no bucket {place}")
    if code in ("404", "NoSuchKey", "BlobNotFound"):
        return RequestFailure(FailureKind.MISSING, "no such object")
    if code in ("412", "PreconditionFailed"):
        return RequestFailure(FailureKind.CHANGED, "it changed meanwhile")
    if code in _EXPIRED:
        return RequestFailure(
            access,
            f"the credentials for {place} have expired; renew them and run the same command again",
        )
    if code in _REFUSED or code == "401":
        return RequestFailure(
            access, f"{place} refuses the credentials ({code}); check {credentials}"
        )
    if re.search("Missing ?(AccessKeyId|SecretAccessKey)|Account must be|token request", text):
        return RequestFailure(
            access,
            f"expected credentials of {credentials}, found none; for a public bucket set "
            f"{ANONYMOUS}=1",
        )
    if code in ("AccessDenied", "403", "AuthorizationFailure"):
        return RequestFailure(
            FailureKind.OTHER,
            f"{place} denies access; check the permissions of your credentials, or set "
            f"{ANONYMOUS}=1 for a public bucket",
        )
    if code in ("301", "307", "PermanentRedirect") or "redirect without LOCATION" in text:
        return RequestFailure(access, f"{place} is in another region; set AWS_REGION to its own")
    if code:
        return RequestFailure(FailureKind.OTHER, f"the server answered {code}; try again later")
    if re.search("HTTP error|error sending request|partial response|response body|Reqwest", text):
        return RequestFailure(
            FailureKind.TRANSIENT, "the connection failed or broke off; check network and server"
        )
    return None
