// Signs in as its last argument says by @azure/identity or MSAL, and calls an API with the token: by
// @azure/core-rest-pipeline, which answers claims challenges, and by fetch. Prints one line of JSON. The argument before
// it is the folder of `node_modules`.

import { createRequire } from "node:module";

const [folder, argument] = process.argv.slice(-2);
const order = JSON.parse(argument);
Object.assign(process.env, order.env);

const require = createRequire(`${folder}/`);
const identity = require("@azure/identity");
const msal = require("@azure/msal-node");
const rest = require("@azure/core-rest-pipeline");

function credential() {
  const { tenant, client } = order;
  switch (order.flow) {
    case "client-secret":
      return new identity.ClientSecretCredential(tenant, client, order.secret);
    case "client-assertion":
      return new identity.ClientAssertionCredential(tenant, client, async () => order.assertion);
    case "workload-identity":
      return new identity.WorkloadIdentityCredential();
    case "managed-identity":
      return order.identity
        ? new identity.ManagedIdentityCredential({ clientId: order.identity })
        : new identity.ManagedIdentityCredential();
    case "on-behalf-of":
      return new identity.OnBehalfOfCredential({
        tenantId: tenant,
        clientId: client,
        clientSecret: order.secret,
        userAssertionToken: order.assertion,
      });
    case "default":
      return new identity.DefaultAzureCredential();
    case "device-code":
      return new identity.DeviceCodeCredential({
        tenantId: tenant,
        clientId: client,
        userPromptCallback: () => {},
      });
  }
}

async function refreshed() {
  const authority = `https://login.microsoftonline.com/${order.tenant}`;
  const app = new msal.PublicClientApplication({ auth: { clientId: order.client, authority } });
  const scopes = [order.scope];
  const first = await app.acquireTokenByDeviceCode({ scopes, deviceCodeCallback: () => {} });
  const second = await app.acquireTokenSilent({ scopes, account: first.account, forceRefresh: true });
  if (first.accessToken === second.accessToken) throw new Error("the token is still the same");
  return second.accessToken;
}

async function signIn(told) {
  if (order.flow === "refresh") return refreshed();
  const source = credential();
  const pipeline = rest.createEmptyPipeline();
  pipeline.addPolicy(rest.bearerTokenAuthenticationPolicy({ credential: source, scopes: order.scope }));
  const request = rest.createPipelineRequest({ url: order.url });
  const answer = await pipeline.sendRequest(rest.createDefaultHttpClient(), request);
  told.pipeline = answer.status;
  return (await source.getToken(order.scope, { enableCae: true })).token;
}

const told = {};
const began = performance.now();
try {
  const token = await signIn(told);
  told.claims = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
  const answer = await fetch(order.url, { headers: { Authorization: `Bearer ${token}` } });
  await answer.text();
  told.plain = answer.status;
} catch (error) {
  told.error = `${error.name}: ${error.message}`;
}
told.seconds = (performance.now() - began) / 1000;
console.log(JSON.stringify(told));
process.exitCode = told.error ? 1 : 0;
