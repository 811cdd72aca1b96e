"""Who asks Bedrock, and where: API keys, AWS credentials with their signature, regions.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/api-keys.html,
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html,
https://docs.aws.amazon.com/general/latest/gr/bedrock.html
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import threading
import time
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import unquote

import attrs

from llm_master.errors import AuthenticationError, ConfigurationError, InvalidRequestError, ProviderError
from llm_master.providers.bedrock_refusals import content_of, error_named, message_in
from llm_master.providers.http import HTTPProvider
from llm_master.rows import ProviderConfig, base_variable, key_variables
from llm_master.transport import Answer, Endpoint, SigningEndpoint

CREDENTIALS = "aws-credentials"
"""As a key: whatever botocore finds, as a profile, single sign-on or a role. ``aws-credentials:NAME`` is that of a profile."""

KEYS = "aws-keys:"
"""What a key begins with that is an access key: ``aws-keys:ID:SECRET``, or ``aws-keys:ID:SECRET:SESSION_TOKEN``."""

PLACEHOLDER = "{region}"

_ARN = re.compile(r"arn:[a-z0-9-]+:(?:bedrock|sagemaker):([a-z0-9-]+):")
_HOST = re.compile(r"(bedrock-runtime(?:-fips)?|bedrock-mantle)\.([a-z0-9-]+)\.")
_INSTALL = "AWS credentials need the botocore package: pip install 'llm_master[bedrock]', or set AWS_BEARER_TOKEN_BEDROCK to an API key"


@attrs.frozen
class Frozen:
    """Credentials as they are at one moment."""

    access_key: str
    secret_key: str = attrs.field(repr=False)
    token: str | None = attrs.field(default=None, repr=False)


class Credentials:
    """What signs a row's requests, found when the first is made.

    Args:
        key: The row's key: ``aws-credentials``, ``aws-credentials:PROFILE`` or ``aws-keys:...``.

    Raises:
        ConfigurationError: An access key is not whole.
    """

    def __init__(self, key: str) -> None:
        self._lock = threading.Lock()
        self._session: Any = None
        self._found: Any = None
        self._profile = key.partition(":")[2] or None if key.startswith(CREDENTIALS) else None
        self._fixed: Frozen | None = None
        if key.startswith(KEYS):
            parts = key.removeprefix(KEYS).split(":", 2)
            if len(parts) < 2 or not parts[0] or not parts[1]:
                raise ConfigurationError(
                    "an AWS access key is not whole: set AWS_SECRET_ACCESS_KEY beside AWS_ACCESS_KEY_ID, "
                    f"or give the key as {KEYS}ID:SECRET or {KEYS}ID:SECRET:SESSION_TOKEN"
                )
            self._fixed = Frozen(parts[0], parts[1], parts[2] if len(parts) > 2 and parts[2] else None)

    @property
    def ready(self) -> bool:
        """Whether :meth:`frozen` answers at once, with credentials that are not about to end."""
        if self._fixed is not None:
            return True
        return self._found is not None and not (hasattr(self._found, "refresh_needed") and self._found.refresh_needed())

    def frozen(self) -> Frozen:
        """The credentials for one request. It may block: credentials are found, and renewed, over the network.

        Raises:
            ConfigurationError: There are none, or botocore is not installed.
            AuthenticationError: They could not be had.
        """
        if self._fixed is not None:
            return self._fixed
        exceptions = _botocore("exceptions")
        with self._lock:
            try:
                if self._found is None:
                    self._found = self._in_session().get_credentials()
                found = self._found.get_frozen_credentials() if self._found is not None else None
            except exceptions.ProfileNotFound as exc:
                raise ConfigurationError(f"{exc}: set AWS_PROFILE to one of those in ~/.aws/config") from exc
            except exceptions.BotoCoreError as exc:
                raise AuthenticationError(f"AWS gave no credentials: {exc}") from exc
        if found is None or not found.access_key:
            raise ConfigurationError(
                "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a "
                "role; or set AWS_BEARER_TOKEN_BEDROCK to an API key of Bedrock's"
            )
        return Frozen(found.access_key, found.secret_key, found.token)

    def region(self) -> str | None:
        """The region of the profile. It reads AWS's own files.

        Raises:
            ConfigurationError: There is no such profile, or botocore is not installed.
        """
        if self._fixed is not None:
            return None
        exceptions = _botocore("exceptions")
        try:
            with self._lock:
                found: str | None = self._in_session().get_config_variable("region")
            return found
        except exceptions.ProfileNotFound as exc:
            raise ConfigurationError(f"{exc}: set AWS_PROFILE to one of those in ~/.aws/config") from exc

    def _in_session(self) -> Any:
        if self._session is None:
            self._session = _botocore("session").Session(profile=self._profile)
        return self._session


def _botocore(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"botocore.{module}")
    except ImportError as exc:
        raise ConfigurationError(_INSTALL) from exc


class OnBedrock(HTTPProvider):
    """What the wire formats have in common there. The key is an API key of Bedrock's, or says which AWS credentials sign."""

    models_path: ClassVar[str | None] = None  # its list is of another API, and wants other rights

    def __init__(self, config: ProviderConfig | None = None) -> None:
        if config is not None and config.region and config.base_url:
            config = attrs.evolve(config, base_url=config.base_url.replace(PLACEHOLDER, config.region))
        super().__init__(config)
        key = self.api_key or ""
        self._credentials = Credentials(key) if key.startswith((CREDENTIALS, KEYS)) else None
        self._signers: dict[tuple[str, str], Signer] = {}
        self._region: str | None = self.config.region

    def headers(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Headers of a request. Those of a signature are made for each."""
        if self._credentials is not None:
            return {"Authorization": "…"}
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    async def endpoint(self, path: str, options: Mapping[str, Any]) -> Endpoint:
        """Where a path is. Credentials are found, and renewed, in a thread."""
        await self._prepared()
        return await super().endpoint(path, options)

    async def exchange(self, operation: str, path: str, body: Mapping[str, Any], model: str) -> Answer:
        """Send a request that is no chat; its 2xx answer."""
        await self._prepared()
        return await super().exchange(operation, path, body, model)

    async def _prepared(self) -> None:
        if self._credentials is None or self._credentials.ready:
            return
        await asyncio.to_thread(self._credentials.frozen)
        if self._region is None:
            self._region = await asyncio.to_thread(self._credentials.region)

    def new_endpoint(self, path: str, headers: Mapping[str, str], base_url: str | None = None) -> Endpoint:
        """An endpoint in the model's region, which signs what is sent to it where AWS credentials ask.

        Raises:
            ConfigurationError: No region is set.
        """
        base = base_url or self.config.base_url or ""
        arn = _ARN.search(unquote(path))
        own = arn[1] if arn is not None and arn[1] else None
        host = _HOST.search(base)
        region = own or self._region or (host[2] if host is not None and PLACEHOLDER not in base else None)
        if PLACEHOLDER in base or (region is None and self._credentials is not None):
            region = region or (self._credentials.region() if self._credentials is not None else None)
            if region is None:
                raise self._no_region()
            base = base.replace(PLACEHOLDER, region)
        elif own is not None and host is not None and host[2] != own:
            # The model is elsewhere than the others that are asked.
            base = base.replace(f"{host[1]}.{host[2]}.", f"{host[1]}.{own}.", 1)
        elif own is None and host is not None:
            region = host[2]
        endpoint = super().new_endpoint(path, headers, base)
        if self._credentials is None or region is None:
            return endpoint
        service = "bedrock-mantle" if "bedrock-mantle." in base else "bedrock"
        signer = self._signers.setdefault((service, region), Signer(service, region, self._credentials))
        return SigningEndpoint(endpoint, base.rstrip("/") + path, signer)

    def _no_region(self) -> ConfigurationError:
        variables = self.config.field_env.get("region", ())
        named = " or ".join(variables) if variables else "region in the row"
        return ConfigurationError(
            f"{self.config.display_name or self.config.name} has no region: set {named} (as us-east-1), region in the row or the profile, "
            f"or {base_variable(self.config)} to a whole address"
        )

    def refused(self, answer: Answer, model: str, endpoint: Endpoint) -> ProviderError:
        """The error for an answer that is no 2xx."""
        content = content_of(answer.body)
        named = answer.headers.get("x-amzn-ErrorType") or content.get("__type") or content.get("code")
        if "error" in content or not (named or "message" in content or "Message" in content):
            error = super().refused(answer, model, endpoint)  # OpenAI's form, or a proxy's
        else:
            named = named if isinstance(named, str) else ""
            error = error_named(named, message_in(answer.body), answer.status, model=model, headers=answer.headers)
        # A signature that does not fit is explained with all that was signed.
        if (fixed := self._secrets()) and error.args:
            said = str(error.args[0])
            for secret in fixed:
                said = said.replace(secret, "…")
            error.args = (said,)
        return error

    def _secrets(self) -> list[str]:
        if self._credentials is None or not self._credentials.ready:
            return []
        frozen = self._credentials.frozen()
        return [secret for secret in (frozen.secret_key, frozen.token) if secret]

    def _build_client(self) -> Any:
        if self._credentials is not None:
            raise InvalidRequestError(
                f"{self.config.display_name or self.config.name} cannot be asked through the SDK's client with AWS credentials: "
                f"set {' or '.join(key_variables(self.config))} to an API key"
            )
        if PLACEHOLDER in (self.config.base_url or ""):
            raise self._no_region()
        return super()._build_client()


@attrs.define
class _Request:
    """What botocore's signer reads of a request."""

    method: str
    url: str
    body: bytes
    headers: dict[str, str]
    context: dict[str, Any]
    params: None = None


class Signer:
    """The headers that sign a request, with Signature Version 4.

    botocore's signer works out what is signed, once for each place: of two requests to it only the moment and the body differ. So a
    signature costs a few microseconds instead of 50, and nothing is logged: botocore would log the session's token with all else.
    """

    def __init__(self, service: str, region: str, credentials: Credentials) -> None:
        self._place = (service, region)
        self._credentials = credentials
        self._derived: _Derived | None = None
        self._now = (0, "")

    def __call__(self, method: str, url: str, body: bytes) -> dict[str, str]:
        """The headers for this request, which is signed at this moment."""
        frozen = self._credentials.frozen()
        second = int(time.time())
        if self._now[0] != second:
            self._now = (second, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second)))
        stamp = self._now[1]
        derived = self._derived
        if derived is None or derived.day != stamp[:8] or derived.frozen != frozen:
            derived = self._derived = _Derived(frozen, stamp[:8], *self._place)
        before, after, signed = derived.form(method, url)
        canonical = f"{before}{stamp}{after}{hashlib.sha256(body).hexdigest()}".encode()
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{derived.scope}\n{hashlib.sha256(canonical).hexdigest()}".encode()
        signature = hmac.digest(derived.key, text, hashlib.sha256).hex()
        authorization = f"AWS4-HMAC-SHA256 Credential={frozen.access_key}/{derived.scope}, SignedHeaders={signed}, Signature={signature}"
        headers = {"X-Amz-Date": stamp, "Authorization": authorization}
        if frozen.token:
            headers["X-Amz-Security-Token"] = frozen.token
        return headers


class _Derived:
    """What stays the same for one day and the same credentials."""

    def __init__(self, frozen: Frozen, day: str, service: str, region: str) -> None:
        self.frozen = frozen
        self.day = day
        self.scope = f"{day}/{region}/{service}/aws4_request"
        self.key = f"AWS4{frozen.secret_key}".encode()
        for part in self.scope.split("/"):
            self.key = hmac.digest(self.key, part.encode(), hashlib.sha256)
        self._auth = _botocore("auth").SigV4Auth(frozen, service, region)
        self._forms: dict[tuple[str, str], tuple[str, str, str]] = {}

    def form(self, method: str, url: str) -> tuple[str, str, str]:
        """The canonical request before the moment, and behind it up to the body's hash; and the names of the headers that are signed."""
        known = self._forms.get((method, url))
        if known is None:
            headers = {"X-Amz-Date": _SOME_MOMENT, **({"X-Amz-Security-Token": self.frozen.token} if self.frozen.token else {})}
            canonical: str = self._auth.canonical_request(_Request(method, url, b"", headers, {}))
            before, after = canonical.split(_SOME_MOMENT)
            after, signed, _ = after.rsplit("\n", 2)
            if len(self._forms) >= _FORMS:
                self._forms.clear()
            known = self._forms[method, url] = (before, f"{after}\n{signed}\n", signed)
        return known


_SOME_MOMENT = "19700101T000000Z"
_FORMS = 1000
"""Places kept: the names of models may come from users' input, and are unbounded in number."""
