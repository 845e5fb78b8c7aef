//! The sign-ins that the clients of other makers do (`tests/tests/clients/entra.py` and `entra.mjs`): what each is told,
//! as the JSON that is its argument. A client prints one line of JSON, a [`Told`].

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::directory::{self, ADELE, CONTOSO, CRM, ORDERS, ORDERS_APP, SYSTEM_ASSIGNED, TOOL, USER_ASSIGNED};
use super::{Entra, IDENTITY_HEADER};

/// A way to sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// ClientSecretCredential.
    ClientSecret,
    /// ClientAssertionCredential, with a token of the cluster's provider.
    ClientAssertion,
    /// WorkloadIdentityCredential, with the same from a file.
    WorkloadIdentity,
    /// ManagedIdentityCredential: the host's own, at IMDS.
    ManagedSystem,
    /// ManagedIdentityCredential: one that was assigned, at IMDS.
    ManagedUser,
    /// ManagedIdentityCredential: the host's own, at Arc's agent.
    Arc,
    /// ManagedIdentityCredential: one that was assigned, at Arc's agent.
    ArcUser,
    /// ManagedIdentityCredential at App Service's endpoint.
    AppService,
    /// OnBehalfOfCredential of a middle tier that a person called.
    OnBehalfOf,
    /// DefaultAzureCredential where only IMDS answers.
    Default,
    /// DefaultAzureCredential with a secret in the environment.
    DefaultEnvironment,
    /// DeviceCodeCredential.
    DeviceCode,
    /// MSAL: a device code, and then a refresh.
    Refresh,
}

impl Flow {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::ClientSecret,
        Self::ClientAssertion,
        Self::WorkloadIdentity,
        Self::ManagedSystem,
        Self::ManagedUser,
        Self::Arc,
        Self::ArcUser,
        Self::AppService,
        Self::OnBehalfOf,
        Self::Default,
        Self::DefaultEnvironment,
        Self::DeviceCode,
        Self::Refresh,
    ];

    /// What the clients call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientSecret => "client-secret",
            Self::ClientAssertion => "client-assertion",
            Self::WorkloadIdentity => "workload-identity",
            Self::ManagedSystem | Self::ManagedUser | Self::Arc | Self::ArcUser | Self::AppService => {
                "managed-identity"
            }
            Self::OnBehalfOf => "on-behalf-of",
            Self::Default | Self::DefaultEnvironment => "default",
            Self::DeviceCode => "device-code",
            Self::Refresh => "refresh",
        }
    }

    /// Whom the token is for: the object id.
    pub fn principal(self) -> &'static str {
        match self {
            Self::ManagedUser | Self::ArcUser => USER_ASSIGNED.id,
            Self::ManagedSystem | Self::Arc | Self::AppService | Self::Default => SYSTEM_ASSIGNED.id,
            Self::OnBehalfOf | Self::DeviceCode | Self::Refresh => ADELE.id,
            Self::ClientSecret | Self::ClientAssertion | Self::WorkloadIdentity | Self::DefaultEnvironment => {
                CRM.principal(CONTOSO).unwrap_or_default()
            }
        }
    }

    /// The client that it is issued to.
    pub fn client(self) -> &'static str {
        match self {
            Self::ManagedUser | Self::ArcUser => USER_ASSIGNED.client,
            Self::ManagedSystem | Self::Arc | Self::AppService | Self::Default => SYSTEM_ASSIGNED.client,
            Self::OnBehalfOf => ORDERS_APP.id,
            Self::DeviceCode | Self::Refresh => TOOL.id,
            Self::ClientSecret | Self::ClientAssertion | Self::WorkloadIdentity | Self::DefaultEnvironment => CRM.id,
        }
    }

    /// The client's argument.
    ///
    /// # Errors
    /// A token can't be made or put into its file.
    pub fn order(self, entra: &Entra, stage: &Stage) -> Result<Value> {
        let federated = CRM.federated.context("the application has no federation")?;
        let mut order = json!({
            "flow": self.name(),
            "tenant": CONTOSO.id,
            "client": self.client(),
            "scope": stage.scope,
            "url": stage.url,
            "env": { "NO_PROXY": "*" },
        });
        let environment = |name: &str, value: &str, order: &mut Value| order["env"][name] = json!(value);
        match self {
            Self::ClientSecret => order["secret"] = json!(CRM.secret),
            Self::ClientAssertion => order["assertion"] = json!(entra.federated_token(federated)?.build()?),
            Self::WorkloadIdentity => {
                entra.project(federated, &stage.token_file.0)?;
                environment("AZURE_TENANT_ID", CONTOSO.id, &mut order);
                environment("AZURE_CLIENT_ID", CRM.id, &mut order);
                environment("AZURE_FEDERATED_TOKEN_FILE", &stage.token_file.1, &mut order);
            }
            Self::ManagedSystem | Self::Default => {}
            Self::ManagedUser => order["identity"] = json!(USER_ASSIGNED.client),
            Self::Arc | Self::ArcUser => {
                let path = "/metadata/identity/oauth2/token";
                environment("IDENTITY_ENDPOINT", &format!("{}{path}", stage.arc), &mut order);
                environment("IMDS_ENDPOINT", &stage.arc, &mut order);
                if self == Self::ArcUser {
                    order["identity"] = json!(USER_ASSIGNED.client);
                }
            }
            Self::AppService => {
                environment("IDENTITY_ENDPOINT", &format!("{}/msi/token", stage.app_service), &mut order);
                environment("IDENTITY_HEADER", IDENTITY_HEADER, &mut order);
            }
            Self::OnBehalfOf => {
                order["secret"] = json!(ORDERS_APP.secret);
                order["assertion"] = json!(entra.user_token(ADELE, TOOL, ORDERS).build()?);
            }
            Self::DefaultEnvironment => {
                environment("AZURE_TENANT_ID", CONTOSO.id, &mut order);
                environment("AZURE_CLIENT_ID", CRM.id, &mut order);
                environment("AZURE_CLIENT_SECRET", CRM.secret.unwrap_or_default(), &mut order);
            }
            Self::DeviceCode | Self::Refresh => order["scope"] = json!(stage.scope.replace(".default", "User.Read")),
        }
        Ok(order)
    }
}

/// What the clients find where they run.
#[derive(Debug, Clone)]
pub struct Stage {
    /// What they call with the token.
    pub url: String,
    /// The scope that they ask for.
    pub scope: String,
    /// The projected token's file: where it is written, and how a client reaches it.
    pub token_file: (PathBuf, String),
    /// Arc's agent, as `http://HOST:PORT`.
    pub arc: String,
    /// App Service's endpoint, as `http://HOST:PORT`.
    pub app_service: String,
}

impl Stage {
    /// Where Graph is asked for its people, and everything is where it always is.
    pub fn of_graph(url: &str, token_file: PathBuf) -> Self {
        let shown = token_file.to_string_lossy().into_owned();
        Self {
            url: url.to_owned(),
            scope: format!("{}/.default", directory::GRAPH.uris[0]),
            token_file: (token_file, shown),
            arc: "http://localhost:40342".to_owned(),
            app_service: "http://127.0.0.1:41741".to_owned(),
        }
    }
}

/// What a client printed.
#[derive(Debug, Clone, Deserialize)]
pub struct Told {
    /// The status that it got by the SDK's own pipeline, which answers claims challenges; `None` where it has none.
    pub pipeline: Option<u16>,
    /// The status that it got with a plain HTTP client and the token.
    pub plain: Option<u16>,
    /// The token's claims.
    pub claims: Option<Value>,
    /// What went wrong.
    pub error: Option<String>,
    /// How long all of it took, in seconds.
    pub seconds: f64,
}

impl Told {
    /// Reads the line.
    ///
    /// # Errors
    /// It isn't one.
    pub fn read(output: &[u8]) -> Result<Self> {
        serde_json::from_slice(output).with_context(|| format!("not told: {}", String::from_utf8_lossy(output)))
    }
}
