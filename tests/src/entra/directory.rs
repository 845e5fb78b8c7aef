//! Who and what exists: tenants, applications, people, groups, managed identities, and the resources that tokens are
//! for. Constants, so that a test can name them; what is done with them is in the other modules.

/// A tenant.
#[derive(Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: &'static str,
    /// A verified domain of it; stands for the id in URLs.
    pub domain: &'static str,
}

/// The tenant that most of the directory lives in.
pub const CONTOSO: &Tenant = &Tenant { id: "7c3e5b1a-0d64-4f2e-9a18-5be0c1d2f301", domain: "contoso.onmicrosoft.com" };
/// A second company.
pub const FABRIKAM: &Tenant =
    &Tenant { id: "e29a64f8-31c7-4b9d-8c55-0f6d7a48b902", domain: "fabrikam.onmicrosoft.com" };
/// A third one, in which nobody of the others has anything.
pub const TAILSPIN: &Tenant =
    &Tenant { id: "14d90c36-a8f2-47e1-b6d3-92c5e70f1a03", domain: "tailspin.onmicrosoft.com" };
/// The tenant of personal accounts; its id is Entra's own.
pub const CONSUMERS: &Tenant = &Tenant { id: "9188040d-6c67-4c5b-b112-36a304b66dad", domain: "live.com" };

/// All tenants.
pub const TENANTS: &[&Tenant] = &[CONTOSO, FABRIKAM, TAILSPIN, CONSUMERS];

/// What tokens are for.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its application id.
    pub id: &'static str,
    /// Its app-ID URIs, without a slash at the end.
    pub uris: &'static [&'static str],
    /// Which tokens it wants: 1 or 2.
    pub version: u8,
    /// Whether its tokens carry a `nonce` in the header, so that nobody else can verify them.
    pub has_nonce: bool,
    /// Whether its tokens list groups.
    pub has_groups: bool,
    /// The app roles that applications have on it.
    pub roles: &'static [&'static str],
    /// The scopes that people may consent to.
    pub scopes: &'static [&'static str],
}

/// Microsoft Graph.
pub const GRAPH: &Resource = &Resource {
    id: "00000003-0000-0000-c000-000000000000",
    uris: &["https://graph.microsoft.com"],
    version: 1,
    has_nonce: true,
    has_groups: false,
    roles: &["User.Read.All", "GroupMember.Read.All"],
    scopes: &["User.Read", "Mail.Read", "Files.Read"],
};
/// Azure Resource Manager.
pub const ARM: &Resource = &Resource {
    id: "797f4846-ba00-4fd7-ba43-dac1f8f63013",
    uris: &["https://management.azure.com", "https://management.core.windows.net"],
    version: 1,
    has_nonce: false,
    has_groups: true,
    roles: &[],
    scopes: &["user_impersonation"],
};
/// Key Vault.
pub const VAULT: &Resource = &Resource {
    id: "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",
    uris: &["https://vault.azure.net"],
    version: 1,
    has_nonce: false,
    has_groups: false,
    roles: &[],
    scopes: &["user_impersonation"],
};
/// PostgreSQL and MySQL in Azure.
pub const OSSRDBMS: &Resource = &Resource {
    id: "123cd850-d9df-40bd-94d5-c9f07b7fa203",
    uris: &["https://ossrdbms-aad.database.windows.net"],
    version: 1,
    has_nonce: false,
    has_groups: true,
    roles: &[],
    scopes: &["user_impersonation"],
};
/// Azure SQL.
pub const SQL: &Resource = &Resource {
    id: "022907d3-0f1b-48f7-badc-1ba6abab6d66",
    uris: &["https://database.windows.net"],
    version: 1,
    has_nonce: false,
    has_groups: true,
    roles: &[],
    scopes: &["user_impersonation"],
};
/// A company's own API that wants v2 tokens: the audience is its id. It is also [`ORDERS_APP`], a middle tier.
pub const ORDERS: &Resource = &Resource {
    id: "5d1f0c7e-64b2-4a39-9e80-c3b7a2165e11",
    uris: &["api://orders"],
    version: 2,
    has_nonce: false,
    has_groups: true,
    roles: &["Orders.Read", "Orders.Write"],
    scopes: &["orders.read", "orders.write"],
};
/// A company's own API that wants v1 tokens: the audience is its app-ID URI.
pub const LEGACY: &Resource = &Resource {
    id: "a06e3b92-7d15-4c48-b1f7-28d94e5c6012",
    uris: &["api://legacy"],
    version: 1,
    has_nonce: false,
    has_groups: true,
    roles: &["Legacy.Use"],
    scopes: &["legacy.use"],
};

/// All resources.
pub const RESOURCES: &[&Resource] = &[GRAPH, ARM, VAULT, OSSRDBMS, SQL, ORDERS, LEGACY];

/// An application that asks for tokens.
#[derive(Debug, PartialEq, Eq)]
pub struct Application {
    /// Its client id.
    pub id: &'static str,
    /// Its display name.
    pub name: &'static str,
    /// Its secret; without one and without a federation it is a public client.
    pub secret: Option<&'static str>,
    /// The subject whose tokens of [`CLUSTER`] stand for its secret.
    pub federated: Option<&'static str>,
    /// Its service principal in each tenant that has one.
    pub principals: &'static [(&'static Tenant, &'static str)],
}

/// The MCP server's application: a secret, a federation, and a service principal in two tenants.
pub const CRM: &Application = &Application {
    id: "b3f8d2a4-1c97-4e06-8f5d-60a9e7c41b21",
    name: "crm-mcp",
    secret: Some("Zx8~crm.Q1wertyUIOP-asdfGHJK"),
    federated: Some("system:serviceaccount:crm:mcp"),
    principals: &[
        (CONTOSO, "3a9b7c10-52de-4f81-a6c4-7e08d1f3b522"),
        (FABRIKAM, "c4d61e8f-903a-42b7-bd29-1f5a8e07c623"),
    ],
};
/// Another server's application, in the same tenant.
pub const BILLING: &Application = &Application {
    id: "f7a2c9e5-48b1-4d3f-a0e6-93c8b1d50e24",
    name: "billing-mcp",
    secret: Some("Yw7~billing.P0oiuytREWQ-lkjhGF"),
    federated: None,
    principals: &[(CONTOSO, "81e4f6d2-b05c-4a97-93d1-c6a7e2f90b25")],
};
/// The application of [`ORDERS`]: a middle tier that asks on behalf of its callers. In [`CRM_READERS`] and [`CRM_WRITERS`].
pub const ORDERS_APP: &Application = &Application {
    id: ORDERS.id,
    name: "orders-api",
    secret: Some("Xv6~orders.M9nbvcXZ-0987poiuy"),
    federated: None,
    principals: &[(CONTOSO, "2c7d9a53-e618-40fb-8b94-d5f1a3e6c026")],
};
/// A tool that people sign in to with a device code.
pub const TOOL: &Application = &Application {
    id: "0e5b8f91-d3a7-4629-bc48-a1d6f7e20c27",
    name: "crm-tool",
    secret: None,
    federated: None,
    principals: &[
        (CONTOSO, "96f3a1c8-7e42-4bd5-a0f9-3b8c5d2e1728"),
        (FABRIKAM, "5be7d402-1f86-4ca3-9d70-e8a4c6b93f29"),
    ],
};

/// All applications.
pub const APPLICATIONS: &[&Application] = &[CRM, BILLING, ORDERS_APP, TOOL];

/// A person.
#[derive(Debug, PartialEq, Eq)]
pub struct User {
    /// The object id.
    pub id: &'static str,
    /// Where the account lives.
    pub tenant: &'static Tenant,
    /// The display name.
    pub name: &'static str,
    /// The user principal name.
    pub upn: &'static str,
}

/// In [`CRM_READERS`].
pub const ADELE: &User = &User {
    id: "00000001-1111-4222-8333-444455556666",
    tenant: CONTOSO,
    name: "Adele Vance",
    upn: "adele.vance@contoso.example",
};
/// In more groups than a token lists, [`CRM_READERS`] and [`CRM_WRITERS`] among them.
pub const ALEX: &User = &User {
    id: "00000002-1111-4222-8333-444455556666",
    tenant: CONTOSO,
    name: "Alex Wilber",
    upn: "alex.wilber@contoso.example",
};
/// Of the other company.
pub const MEGAN: &User = &User {
    id: "00000009-1111-4222-8333-444455556666",
    tenant: FABRIKAM,
    name: "Megan Bowen",
    upn: "megan.bowen@fabrikam.example",
};

/// All people.
pub const USERS: &[&User] = &[ADELE, ALEX, MEGAN];

/// A group of [`CONTOSO`].
pub const CRM_READERS: &str = "d8b1e6f3-70a4-4c29-95e8-b3f2c7d41a31";
/// A group of [`CONTOSO`].
pub const CRM_WRITERS: &str = "6f0c9d27-e5b8-4183-a7d6-41e9f8b35c32";
/// How many groups [`ALEX`] is in.
pub const MANY: usize = 250;

/// The groups that a principal is in.
pub fn groups(oid: &str) -> Vec<String> {
    if oid == ALEX.id {
        let others = (2..MANY).map(|number| format!("{number:08}-9999-4aaa-8bbb-ccccddddeeee"));
        return [CRM_READERS, CRM_WRITERS].into_iter().map(str::to_owned).chain(others).collect();
    }
    if oid == ADELE.id || CRM.principals.first().is_some_and(|(_, principal)| *principal == oid) {
        return vec![CRM_READERS.to_owned()];
    }
    if ORDERS_APP.principal(CONTOSO) == Some(oid) {
        return vec![CRM_READERS.to_owned(), CRM_WRITERS.to_owned()];
    }
    Vec::new()
}

/// An identity that a host has in [`CONTOSO`].
#[derive(Debug, PartialEq, Eq)]
pub struct Managed {
    /// Its client id.
    pub client: &'static str,
    /// Its object id.
    pub id: &'static str,
    /// Its ARM resource id.
    pub resource: &'static str,
}

/// The host's own identity: what is meant when no other is named.
pub const SYSTEM_ASSIGNED: &Managed = &Managed {
    client: "ab41d7c2-6e90-4f35-8d1b-05c9e3a7f641",
    id: "48c0f5b9-2d7e-4a16-b3f8-e7d19a6c0542",
    resource: "/subscriptions/0b1f6471-1bf0-4dda-aec3-111122223333/resourceGroups/hosts/providers/Microsoft.Compute/virtualMachines/mcp-1",
};
/// An identity that was assigned to the host.
pub const USER_ASSIGNED: &Managed = &Managed {
    client: "17e5a9d3-c84f-4b02-96a7-f1b8d6e20c43",
    id: "bd92e607-f153-48ca-a5e0-2c4d7b8f9144",
    resource: "/subscriptions/0b1f6471-1bf0-4dda-aec3-111122223333/resourceGroups/hosts/providers/Microsoft.ManagedIdentity/userAssignedIdentities/crm",
};

/// The host of a cluster's OpenID provider, whose tokens are accepted in place of [`CRM`]'s secret.
pub const CLUSTER_HOST: &str = "oidc.cluster.example";
/// Its issuer.
pub const CLUSTER: &str = "https://oidc.cluster.example";
/// The audience of its tokens.
pub const FEDERATION_AUDIENCE: &str = "api://AzureADTokenExchange";

/// The tenant that a segment of a URL names by id or domain.
pub fn tenant(segment: &str) -> Option<&'static Tenant> {
    let segment = segment.to_ascii_lowercase();
    TENANTS.iter().copied().find(|tenant| segment == tenant.id || segment == tenant.domain)
}

/// The resource that `name` (its id or a URI of it) stands for.
pub fn resource(name: &str) -> Option<&'static Resource> {
    let name = name.trim_end_matches('/');
    RESOURCES.iter().copied().find(|one| one.id == name || one.uris.contains(&name))
}

/// The application with this client id.
pub fn application(id: &str) -> Option<&'static Application> {
    APPLICATIONS.iter().copied().find(|one| one.id == id)
}

impl Application {
    /// Its service principal there.
    pub fn principal(&self, tenant: &Tenant) -> Option<&'static str> {
        self.principals.iter().find(|(home, _)| *home == tenant).map(|(_, oid)| *oid)
    }
}
