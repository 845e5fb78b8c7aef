"""Signs in as its argument says by azure-identity or MSAL, and calls an API with the token: by azure-core's pipeline,
which answers claims challenges, and by requests. Prints one line of JSON."""

import base64
import json
import os
import sys
import time

order = json.loads(sys.argv[1])
os.environ.update(order["env"])

import azure.identity
import msal
import requests
from azure.core import PipelineClient
from azure.core.pipeline.policies import BearerTokenCredentialPolicy
from azure.core.rest import HttpRequest


def credential():
    tenant, client = order["tenant"], order["client"]
    match order["flow"]:
        case "client-secret":
            return azure.identity.ClientSecretCredential(tenant, client, order["secret"])
        case "client-assertion":
            return azure.identity.ClientAssertionCredential(tenant, client, lambda: order["assertion"])
        case "workload-identity":
            return azure.identity.WorkloadIdentityCredential()
        case "managed-identity":
            return azure.identity.ManagedIdentityCredential(client_id=order.get("identity"))
        case "on-behalf-of":
            return azure.identity.OnBehalfOfCredential(
                tenant, client, client_secret=order["secret"], user_assertion=order["assertion"]
            )
        case "default":
            return azure.identity.DefaultAzureCredential()
        case "device-code":
            return azure.identity.DeviceCodeCredential(client, tenant_id=tenant, prompt_callback=lambda *_: None)


def refreshed() -> str:
    authority = f"https://login.microsoftonline.com/{order['tenant']}"
    app = msal.PublicClientApplication(order["client"], authority=authority)
    first = app.acquire_token_by_device_flow(app.initiate_device_flow(scopes=[order["scope"]]))
    second = app.acquire_token_silent([order["scope"]], account=app.get_accounts()[0], force_refresh=True)
    if first["access_token"] == second["access_token"]:
        raise ValueError("the token is still the same")
    return second["access_token"]


def sign_in(told: dict) -> str:
    if order["flow"] == "refresh":
        return refreshed()
    source = credential()
    policy = BearerTokenCredentialPolicy(source, order["scope"], enable_cae=True)
    client = PipelineClient(order["url"], policies=[policy])
    told["pipeline"] = client.send_request(HttpRequest("GET", order["url"])).status_code
    return source.get_token(order["scope"], enable_cae=True).token


def claims(token: str) -> dict:
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


told, began = {}, time.monotonic()
try:
    token = sign_in(told)
    told["claims"] = claims(token)
    answer = requests.get(order["url"], headers={"Authorization": f"Bearer {token}"}, timeout=20)
    told["plain"] = answer.status_code
except Exception as error:  # Whatever it is: the test reads it.
    told["error"] = f"{type(error).__name__}: {error}"
told["seconds"] = time.monotonic() - began
print(json.dumps(told))
sys.exit("error" in told)
