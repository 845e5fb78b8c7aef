//! envoy as a TLS reverse proxy. It speaks upstream what the client speaks, and pools connections there; it sets
//! TCP_NODELAY by itself, and has neither an access log nor an administration port unless told to.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Site, which};
use crate::affinity::cores;
use crate::pki::HOST;

/// How it is started.
pub(super) fn command(site: &Site, folder: &Path, place: SocketAddr) -> Result<Command> {
    let (pki, origin) = (&site.pki, site.origin);
    let config = format!(
        r#"static_resources:
  listeners:
  - name: front
    address: {{ socket_address: {{ address: {here}, port_value: {port} }} }}
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params: {{ tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3 }}
            tls_certificates:
            - certificate_chain: {{ filename: "{leaf}" }}
              private_key: {{ filename: "{key}" }}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          codec_type: AUTO
          http2_protocol_options: {{ max_concurrent_streams: 1000 }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: "/" }}
                route: {{ cluster: origin, timeout: 300s }}
  clusters:
  - name: origin
    type: STATIC
    connect_timeout: 10s
    load_assignment:
      cluster_name: origin
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {there}, port_value: {there_port} }} }} }}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        use_downstream_protocol_config: {{ http_protocol_options: {{}}, http2_protocol_options: {{}} }}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {HOST}
        common_tls_context:
          tls_params: {{ tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3 }}
          validation_context: {{ trusted_ca: {{ filename: "{ca}" }} }}
"#,
        here = place.ip(),
        port = place.port(),
        there = origin.ip(),
        there_port = origin.port(),
        leaf = pki.leaf().display(),
        key = pki.leaf_key().display(),
        ca = pki.ca().display(),
    );
    let path = folder.join("envoy.yaml");
    fs::write(&path, config)?;
    let mut command = Command::new(which("envoy").unwrap_or_else(|| "envoy".into()));
    command.arg("--config-path").arg(path).args([
        "--concurrency",
        &cores().to_string(),
        "--disable-hot-restart",
        "--log-level",
        "error",
    ]);
    Ok(command)
}
