// A real OpenID Connect provider (npm oidc-provider) for the tests.
//
//   node provider.mjs '{"port": 0, "clients": [...], "tls": {...}}'
//
// It prints its port. Two grants are not in oidc-provider and are added as it documents
// (registerGrantType): token exchange (RFC 8693) and the JWT bearer grant (RFC 7523).
// GET /test/grants answers how many tokens each client was given.

import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createLocalJWKSet, jwtVerify } from 'jose';
import { Provider } from 'oidc-provider';

const config = JSON.parse(process.argv[2]);
const scheme = config.tls ? 'https' : 'http';
const issuer = `${scheme}://127.0.0.1:${config.port}`;
const seconds = (resource) => Number(/(\d+)s$/.exec(resource)?.[1] ?? 60);

const life = (ctx, token) => token.resourceServer?.accessTokenTTL ?? 60;

const provider = new Provider(issuer, {
  clients: config.clients,
  scopes: ['openid', 'offline_access', 'mlflow'],
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none', ...(config.tls ? ['tls_client_auth'] : [])],
  clockTolerance: 5,
  cookies: { keys: ['a key for tests'] },
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true, allowedPolicy: () => true },
    devInteractions: { enabled: true },
    mTLS: {
      enabled: Boolean(config.tls),
      tlsClientAuth: true,
      getCertificate: (ctx) => ctx.socket.getPeerX509Certificate?.(),
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateSubjectMatches: (ctx, property, expected) =>
        property === 'tls_client_auth_san_dns' && (ctx.socket.getPeerX509Certificate()?.subjectAltName ?? '').includes(expected),
    },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'urn:mlflow:60s',
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: 'mlflow', audience: resource, accessTokenTTL: seconds(resource),
        accessTokenFormat: resource.startsWith('urn:jwt') ? 'jwt' : 'opaque',
      }),
    },
  },
  ttl: { AccessToken: life, ClientCredentials: life, DeviceCode: 300, RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 300, IdToken: 60 },
  issueRefreshToken: (ctx, client, code) => code.scopes.has('offline_access'),
  rotateRefreshToken: true,
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
});

// Both grants trust one other issuer, whose keys stand in the configuration.
async function subject(token) {
  const { payload } = await jwtVerify(token, createLocalJWKSet(config.federation), { audience: issuer });
  return payload.sub;
}

function grant(name, parameter) {
  provider.registerGrantType(name, async (ctx) => {
    const { client, params } = ctx.oidc;
    let accountId;
    try {
      accountId = await subject(params[parameter]);
    } catch {
      ctx.status = 400;
      ctx.body = { error: 'invalid_grant', error_description: `the ${parameter} was not accepted` };
      return;
    }
    const granted = new provider.Grant({ accountId, clientId: client.clientId });
    granted.addOIDCScope('mlflow');
    const token = new provider.AccessToken({ accountId, client, scope: 'mlflow', gty: name, grantId: await granted.save() });
    ctx.body = { access_token: await token.save(), token_type: 'Bearer', expires_in: token.expiration, scope: 'mlflow' };
    if (parameter === 'subject_token') ctx.body.issued_token_type = 'urn:ietf:params:oauth:token-type:access_token';
    count(client.clientId);
  }, [parameter, 'subject_token_type', 'requested_token_type', 'scope', 'audience', 'resource']);
}
grant('urn:ietf:params:oauth:grant-type:token-exchange', 'subject_token');
grant('urn:ietf:params:oauth:grant-type:jwt-bearer', 'assertion');

const grants = {};
function count(client) { grants[client] = (grants[client] ?? 0) + 1; }
provider.on('grant.success', (ctx) => count(ctx.oidc.client.clientId));
if (config.verbose) provider.on('grant.error', (ctx, error) => console.error(error.message, error.error_description, error.error_detail));

const answer = provider.callback();
function handle(request, response) {
  if (request.url === '/test/grants') {
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify(grants));
  } else {
    answer(request, response);
  }
}

const server = config.tls
  ? https.createServer({ cert: readFileSync(config.tls.cert), key: readFileSync(config.tls.key), ca: readFileSync(config.tls.ca), requestCert: true, rejectUnauthorized: false }, handle)
  : http.createServer(handle);
server.listen(config.port, '127.0.0.1', () => console.log('listening'));
