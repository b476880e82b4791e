// Obtains tokens with Microsoft's own library, in each way that Tandem uses. Settings come in the environment. What a
// person has to do is printed as a line of JSON, and the answer is read from the standard input; so are the results.
import { createInterface } from "node:readline";
import { ConfidentialClientApplication, CryptoProvider, PublicClientApplication } from "@azure/msal-node";

const { AUTHORITY, HOST, CLIENT_ID, SECRET, THUMBPRINT, PRIVATE_KEY, TEAMS, REDIRECT } = process.env;
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const print = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const ask = async (value) => {
	print(value);
	return (await lines.next()).value;
};

const auth = { clientId: CLIENT_ID, authority: AUTHORITY, knownAuthorities: [HOST] };
const bySecret = new ConfidentialClientApplication({ auth: { ...auth, clientSecret: SECRET } });
const byCertificate = new ConfidentialClientApplication({
	auth: { ...auth, clientCertificate: { thumbprintSha256: THUMBPRINT, privateKey: PRIVATE_KEY } },
});
const graph = ["https://graph.microsoft.com/.default"];

for (const [how, client] of [["client secret", bySecret], ["certificate", byCertificate]]) {
	const result = await client.acquireTokenByClientCredential({ scopes: graph });
	print({ how, token: result.accessToken });
}

const { verifier, challenge } = await new CryptoProvider().generatePkceCodes();
const request = { scopes: [`${TEAMS}/.default`], redirectUri: REDIRECT };
const open = await bySecret.getAuthCodeUrl({
	...request, codeChallenge: challenge, codeChallengeMethod: "S256", state: "s1", nonce: "n1",
});
const back = new URL(await ask({ open }));
if (back.searchParams.get("state") !== "s1") throw new Error("the state was changed");
const signedIn = await bySecret.acquireTokenByCode({
	...request, code: back.searchParams.get("code"), codeVerifier: verifier, nonce: "n1", state: "s1",
}, { state: back.searchParams.get("state") });
print({ how: "authorization code", token: signedIn.accessToken, account: signedIn.account.username,
	tenant: signedIn.tenantId });

const refreshed = await bySecret.acquireTokenSilent({
	account: signedIn.account, scopes: request.scopes, forceRefresh: true,
});
print({ how: "refresh token", token: refreshed.accessToken });
const other = await bySecret.acquireTokenSilent({ account: signedIn.account, scopes: graph, forceRefresh: true });
print({ how: "refresh token for another resource", token: other.accessToken });

const device = await new PublicClientApplication({ auth }).acquireTokenByDeviceCode({
	scopes: graph,
	deviceCodeCallback: (r) => print({ open: r.verificationUri, code: r.userCode }),
});
print({ how: "device code", token: device.accessToken, account: device.account.username });
process.exit(0); // the standard input is open
