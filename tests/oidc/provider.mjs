// A strict OpenID provider on a free port of this machine, for tests. It prints its issuer on standard output when it
// listens, and ends when its standard input ends, so that it never outlives the test that started it.
//
// Anybody can log in through its form: the login is the subject. CLIENTS is a JSON list of client registrations.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';

// Its advice about production is noise here, and begins while it is loaded.
console.info = console.warn = () => {};
const { default: Provider } = await import('oidc-provider');

function key(type, options, algorithm) {
  const { privateKey } = generateKeyPairSync(type, options);
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: algorithm, kid: `key-${algorithm}` };
}

const configuration = {
  clients: JSON.parse(process.env.CLIENTS ?? '[]'),
  jwks: {
    keys: [
      key('rsa', { modulusLength: 2048 }, 'RS256'),
      key('ec', { namedCurve: 'P-256' }, 'ES256'),
      key('ed25519', {}, 'EdDSA'),
    ],
  },
  enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256', 'EdDSA'] },
  scopes: ['openid', 'email', 'profile', 'groups'],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'], groups: ['groups'] },
  cookies: { keys: ['only-for-tests'] },
  findAccount: (_, login) => ({
    accountId: login,
    claims: () => ({
      sub: login,
      email: `${login}@example.com`,
      email_verified: !login.startsWith('unverified'),
      name: `Person ${login}`,
      groups: ['engineering', `team-${login}`],
    }),
  }),
};

let answer;
const server = createServer((request, response) => answer(request, response));
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  answer = new Provider(issuer, configuration).callback();
  process.stdout.write(`${issuer}\n`);
});

process.stdin.on('end', () => process.exit(0)).resume();
