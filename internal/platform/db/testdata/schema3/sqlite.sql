PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE goose_db_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	);
INSERT INTO goose_db_version VALUES(1,0,1,'2026-11-28 18:28:45');
INSERT INTO goose_db_version VALUES(2,1,1,'2026-11-28 18:28:45');
INSERT INTO goose_db_version VALUES(3,2,1,'2026-11-28 18:28:45');
INSERT INTO goose_db_version VALUES(4,3,1,'2026-11-28 18:28:45');
CREATE TABLE accounts (
	name           TEXT NOT NULL PRIMARY KEY,
	correlation_id TEXT NOT NULL,
	has_details    BIGINT NOT NULL,
	tenant_id      TEXT NOT NULL,
	tenant_key     TEXT NOT NULL, -- tenant_id in lower case
	present        BIGINT NOT NULL, -- services for which the account has an object
	enabled        BIGINT NOT NULL,
	sync_enabled   BIGINT NOT NULL,
	subdomain_key  TEXT UNIQUE,   -- Direct Routing label in lower case
	details        TEXT NOT NULL,
	status         TEXT NOT NULL,
	errors         TEXT NOT NULL,
	version        BIGINT NOT NULL,
	modified       BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO accounts VALUES('contoso','crm żółw',1,'6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d','6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d',6,6,0,'cont1','{"teamsDirectRouting":{"configuration":{"callScreening":true,"subdomain":"Cont1","region1Token":"MS=ms1","region2Token":"MS=ms2"},"subdomainStatus":"provisioned"}}','synced','',1795890525418978,1795890525418978);
INSERT INTO accounts VALUES('fabrikam','crm żółw',1,'6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d','6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d',16,16,0,NULL,'','synced','',1795890525422008,1795890525422008);
CREATE TABLE account_counts (
	account TEXT NOT NULL,
	service BIGINT NOT NULL,
	n       BIGINT NOT NULL,
	PRIMARY KEY (account, service)
) WITHOUT ROWID;
INSERT INTO account_counts VALUES('contoso',0,3);
INSERT INTO account_counts VALUES('contoso',1,2);
INSERT INTO account_counts VALUES('contoso',2,1);
CREATE TABLE numbers (
	number         TEXT NOT NULL PRIMARY KEY,
	account        TEXT NOT NULL,
	present        BIGINT NOT NULL,
	enabled        BIGINT NOT NULL,
	has_config     BIGINT NOT NULL,
	custom_header  TEXT NOT NULL,
	details        TEXT NOT NULL, -- empty if the bits above say it all
	status         TEXT NOT NULL,
	errors         TEXT NOT NULL,
	version        BIGINT NOT NULL,
	modified       BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO numbers VALUES('+442079460100','contoso',2,2,1,'tag-0','','synced','',1795890525457677,1795890525457677);
INSERT INTO numbers VALUES('+442079460101','contoso',4,4,0,'','{"teamsOperatorConnect":{"assignmentStatus":"assigned","configuration":{"usage":"CallingUserAssignment","choosableCapabilities":[],"civicAddressId":"c1","allowTenantAddressUpdate":false,"displayedCountryCode":"GB"}}}','synced','',1795890525457677,1795890525457677);
INSERT INTO numbers VALUES('+442079460102','contoso',2,2,1,'tag-2','','synced','',1795890525457677,1795890525457677);
CREATE TABLE requests (
	tenant_id TEXT NOT NULL PRIMARY KEY,
	details   TEXT NOT NULL,
	status    TEXT NOT NULL, -- serviceProvisioningStatus
	errors    TEXT NOT NULL,
	version   BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO requests VALUES('6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d','{"id":"rfi1","operatorId":"op","status":"active","consentedOn":"2026-11-01T02:03:04Z","lastModifiedOn":"2026-11-28T18:28:45.496762Z","consentedCountries":["GB"],"contacts":[{"fullName":"A Person","email":"a@example.com"}],"customerRelationship":{"comment":"called","lastModifiedOn":"2026-11-28T18:28:45.496762Z"}}','synced','',1795890525496762);
CREATE TABLE civic_addresses (
	tenant_id TEXT NOT NULL,
	id        TEXT NOT NULL,
	details   TEXT NOT NULL,
	version   BIGINT NOT NULL,
	modified  BIGINT NOT NULL,
	PRIMARY KEY (tenant_id, id)
) WITHOUT ROWID;
INSERT INTO civic_addresses VALUES('6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d','c1','{"id":"c1","country":"GB","cityOrTown":"Łódź","defaultLocationId":"l1"}',1795890525498679,1795890525498679);
CREATE TABLE capability_plans (
	tenant_id TEXT NOT NULL,
	place     BIGINT NOT NULL, -- order of the list
	details   TEXT NOT NULL,
	PRIMARY KEY (tenant_id, place)
) WITHOUT ROWID;
INSERT INTO capability_plans VALUES('6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d',0,'{"name":"p1","usage":"CallingUserAssignment","supportsTollFree":false}');
INSERT INTO capability_plans VALUES('6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d',1,'{"name":"p2","usage":"ConferenceAssignment","supportsTollFree":false}');
CREATE TABLE repeatability (
	scope      TEXT NOT NULL,
	id         TEXT NOT NULL,
	first_sent BIGINT NOT NULL,
	digest     BLOB NOT NULL,
	response   BLOB,
	made       BIGINT NOT NULL,
	PRIMARY KEY (scope, id)
) WITHOUT ROWID;
INSERT INTO repeatability VALUES('client/PUT numbers','0b0e0a6e-6d3f-4a2e-9d6f-2a3c4d5e6f70',1795890525454274,X'230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5',X'7b22616e73776572223a317d',1795890525454345);
CREATE TABLE feed_head (
	id       BIGINT NOT NULL PRIMARY KEY,
	position BIGINT NOT NULL,
	pruned   BIGINT NOT NULL -- entries up to here were removed
, database TEXT NOT NULL DEFAULT '', pruned_entry BIGINT NOT NULL DEFAULT 0) WITHOUT ROWID;
INSERT INTO feed_head VALUES(1,6,2,'c1ead471-b640-48a7-ae9a-7d861fa02b87',-5852817818024237857);
CREATE TABLE audit_head (
	id   BIGINT NOT NULL PRIMARY KEY,
	seq  BIGINT NOT NULL,
	hash BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO audit_head VALUES(1,14,X'6519ba8a10d9265f5bead941da1853ddd69769561d328babc4aa6c139c1aa023');
CREATE TABLE audit (
	seq        INTEGER NOT NULL PRIMARY KEY,
	at         BIGINT NOT NULL,
	actor_kind TEXT NOT NULL,
	actor_id   TEXT NOT NULL,
	request_id TEXT NOT NULL,
	action     TEXT NOT NULL,
	target     TEXT NOT NULL,
	items      BIGINT NOT NULL,
	digest     BLOB NOT NULL,
	summary    TEXT NOT NULL,
	prev       BLOB NOT NULL,
	hash       BLOB NOT NULL
);
INSERT INTO audit VALUES(1,1795890525419292,'administrator','local:voice','r-1','account.put','contoso',1,X'81fcc79aea7b9dc50adfdd993ea4ca38726d3f13f3339053ca3894ebcfb84b96','{"Name":"contoso","CorrelationID":"crm żółw","HasServiceDetails":true,"TeamsTenantID":"6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d","Services":{"teamsDirectRouting":{"Enabled":true,"SyncEnabled":false,"NumberCount":0,"DirectRouting":{"callScreening":true,"subdomain":"Cont1","region1Token":"MS=ms1","region2Token":"MS=ms2"},"SubdomainStatus":"provisioned"},"teamsOperatorConnect":{"Enabled":true,"SyncEnabled":false,"NumberCount":0,"DirectRouting":null,"SubdomainStatus":""}},"State":{"serviceProvisioningStatus":"synced"},"Version":1795890525418978,"Modified":"2026-11-28T18:28:45.418978Z"}',X'0000000000000000000000000000000000000000000000000000000000000000',X'a751f97e200b4a63da73a89f37eae0d05518b8da8e0b62484f6ed9f1bb6ee064');
INSERT INTO audit VALUES(2,1795890525422119,'administrator','local:voice','r-1','account.put','fabrikam',1,X'1ad534b41a9114cfa557e03e0d530f448b20c2a47be7f733a882ddfac0a77375','{"Name":"fabrikam","CorrelationID":"crm żółw","HasServiceDetails":true,"TeamsTenantID":"6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d","Services":{"zoomPhoneCloudPeering":{"Enabled":true,"SyncEnabled":false,"NumberCount":0,"DirectRouting":null,"SubdomainStatus":""}},"State":{"serviceProvisioningStatus":"synced"},"Version":1795890525422008,"Modified":"2026-11-28T18:28:45.422008Z"}',X'a751f97e200b4a63da73a89f37eae0d05518b8da8e0b62484f6ed9f1bb6ee064',X'22688fc9bee79aeef52fcf9a92c80c75ce07b6ee5a02d8ecb3e9f99f7f1f3dc2');
INSERT INTO audit VALUES(3,1795890525442705,'administrator','local:voice','r-1','account.put','gone',1,X'31b6cf68447c2648a52580174797e59e4c3676bbd60fc69f5ecee348325270eb','{"Name":"gone","CorrelationID":"crm żółw","HasServiceDetails":true,"TeamsTenantID":"6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d","Services":null,"State":{"serviceProvisioningStatus":"synced"},"Version":1795890525442623,"Modified":"2026-11-28T18:28:45.442623Z"}',X'22688fc9bee79aeef52fcf9a92c80c75ce07b6ee5a02d8ecb3e9f99f7f1f3dc2',X'4e95d919fc7b1d0ecb739373fc13ada40352d6ed31376155ace811ef8e571239');
INSERT INTO audit VALUES(4,1795890525449010,'administrator','local:voice','r-1','account.delete','gone',1,X'4b9f2c32577beb1ebc8ab2a1e226faaa9176a81cd4eedbaa22f8a0db919972b5','{"numbers":0}',X'4e95d919fc7b1d0ecb739373fc13ada40352d6ed31376155ace811ef8e571239',X'53cb6a58f13fc3ae3214f082a9fe35808edcd2dac9c8f2982a8a378c6abf82dd');
INSERT INTO audit VALUES(5,1795890525466633,'administrator','local:voice','r-1','numbers.put','contoso',4,X'9eeaadca8b8a994742115cd72250d44356e7016453ccb86b16716beb027652cc','{"numbers":["+442079460100","+442079460101","+442079460102","+442079460103"]}',X'53cb6a58f13fc3ae3214f082a9fe35808edcd2dac9c8f2982a8a378c6abf82dd',X'2c70403959b2e8f299658dc4fd41c264786403c6cab0b86fb5d4d8e28a892655');
INSERT INTO audit VALUES(6,1795890525474559,'administrator','local:voice','r-1','numbers.delete','contoso',1,X'c54c30e1816b2a007cf27f3b0a8151a6d0276f442534312ef976f9dc8f2a3115','{"numbers":["+442079460103"]}',X'2c70403959b2e8f299658dc4fd41c264786403c6cab0b86fb5d4d8e28a892655',X'3b349a47a36a4d9547fd56e925dffd2e7abc2bdef853e8490721f010cd76a4e9');
INSERT INTO audit VALUES(7,1795890525490702,'administrator','local:voice','r-1','request.save','6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d',1,X'20f14a9e1029983f7f85214e09b49912a3929e7148361163bf35f255b84e6e68','{"ID":"rfi1","TenantID":"6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d","AccountName":"","OperatorID":"op","Status":"active","ConsentedOn":"2026-11-01T02:03:04Z","LastModifiedOn":"2026-11-28T18:28:45.490633Z","ConsentedCountries":["GB"],"Contacts":[{"fullName":"A Person","email":"a@example.com"}],"Relationship":null,"State":{"serviceProvisioningStatus":"synced"},"Version":1795890525490633}',X'3b349a47a36a4d9547fd56e925dffd2e7abc2bdef853e8490721f010cd76a4e9',X'a90bb39d6a2477519c0716443c597efe4cb3c650ce1268d53adb35050fdf6052');
INSERT INTO audit VALUES(8,1795890525496823,'administrator','local:voice','r-1','request.patch','6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d',1,X'2ac44af59f11a0a33563ecec92380b1641df3db411c85fdb587893d28691222f','{"comment":"called","lastModifiedOn":"2026-11-28T18:28:45.496762Z"}',X'a90bb39d6a2477519c0716443c597efe4cb3c650ce1268d53adb35050fdf6052',X'2d5c2bbee1e501df5b985e966941fc854518ad46b7c981d66865c47c71aac4af');
INSERT INTO audit VALUES(9,1795890525498783,'administrator','local:voice','r-1','civicAddresses.save','6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d',1,X'b0cee32be298b8e94fb4ecb9135e5be16a758eafbc4f66c30abf0ade9777ed08','{"addresses":1}',X'2d5c2bbee1e501df5b985e966941fc854518ad46b7c981d66865c47c71aac4af',X'b7088ca94ab9a80cf86fa38e1b7f085fc50fd9dd2c9cf2608600e73d9de7c1b9');
INSERT INTO audit VALUES(10,1795890525500042,'administrator','local:voice','r-1','capabilityPlans.save','6f1c9b1e-7a55-4a43-9d0e-0a5f6a1f2c3d',2,X'dd1d6b5c036ae42b7eb853445c590ab3248770fd84d4f9d86adef7c81073eba1','[{"name":"p1","usage":"CallingUserAssignment","supportsTollFree":false},{"name":"p2","usage":"ConferenceAssignment","supportsTollFree":false}]',X'b7088ca94ab9a80cf86fa38e1b7f085fc50fd9dd2c9cf2608600e73d9de7c1b9',X'ee5b37eafec3796d16e0a53fc40c252459d5e36eff78545e81ef244e59df8ace');
INSERT INTO audit VALUES(11,1795890525500898,'administrator','local:voice','r-1','client.create','c1',1,X'5f9ae3451f62bab1fddc5dd2dc8a680fb4a9925738ec29fa234c1dead1a897e9','{"name":"BSS","roles":["ProvisioningAPI.Read","ProvisioningAPI.Write"]}',X'ee5b37eafec3796d16e0a53fc40c252459d5e36eff78545e81ef244e59df8ace',X'af412320095b4d0e35f792eec37b63f69c911644770dc7af79f1d5d54321dd44');
INSERT INTO audit VALUES(12,1795890525501707,'administrator','local:voice','r-1','client.create','c2',1,X'17e7bb07929f501ba1d9f7762c81bc3888492e775fbec088e4f262f0189c505c','{"name":"Old","roles":["ProvisioningAPI.Read"]}',X'af412320095b4d0e35f792eec37b63f69c911644770dc7af79f1d5d54321dd44',X'63c5e77e657169f2362acb86e1c8c56d70565c03cadbd77b08ddaacfd0d9320c');
INSERT INTO audit VALUES(13,1795890525502473,'administrator','local:voice','r-1','client.revoke','c2',1,X'ac2840369c649fc43843d2c9bd55f83c06ecb6e7609301d8acb786f430d4b75e','{"revoked":"2026-01-02T04:04:05.000006Z"}',X'63c5e77e657169f2362acb86e1c8c56d70565c03cadbd77b08ddaacfd0d9320c',X'2c50b745394ac86e7bd6b2e56e9cf375ceda0a7315c32baed8b9b5d5124bb906');
INSERT INTO audit VALUES(14,1795890525503076,'administrator','local:voice','r-1','signingKey.create','k1',1,X'd581922bef6ee2b49d9ec1c45274cd9b40680a75f53bc7cee8c2a3e79f1fb73d','{"algorithm":"ES256"}',X'2c50b745394ac86e7bd6b2e56e9cf375ceda0a7315c32baed8b9b5d5124bb906',X'6519ba8a10d9265f5bead941da1853ddd69769561d328babc4aa6c139c1aa023');
CREATE TABLE api_clients (
	id      TEXT NOT NULL PRIMARY KEY,
	name    TEXT NOT NULL,
	roles   TEXT NOT NULL, -- separated by spaces
	secret  TEXT NOT NULL, -- hash
	created BIGINT NOT NULL,
	creator TEXT NOT NULL,
	revoked BIGINT NOT NULL -- 0 while not revoked
) WITHOUT ROWID;
INSERT INTO api_clients VALUES('c1','BSS','ProvisioningAPI.Read ProvisioningAPI.Write','hash',1767323045000006,'root',0);
INSERT INTO api_clients VALUES('c2','Old','ProvisioningAPI.Read','hash2',1767323046000006,'root',1767326645000006);
CREATE TABLE signing_keys (
	id        TEXT NOT NULL PRIMARY KEY,
	algorithm TEXT NOT NULL,
	public    BLOB NOT NULL,
	sealed    BLOB NOT NULL,
	created   BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO signing_keys VALUES('k1','ES256',X'7b226b7479223a224543227d',X'0001ff27',1767323045000006);
CREATE TABLE rate_limits (
	bucket TEXT NOT NULL PRIMARY KEY,
	state  BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO rate_limits VALUES('provapi',12345);
CREATE TABLE IF NOT EXISTS "feed" (
	position INTEGER NOT NULL PRIMARY KEY,
	topic    TEXT NOT NULL,
	at       BIGINT NOT NULL,
	payload  BLOB NOT NULL,
	entry    BIGINT NOT NULL DEFAULT (random())
);
INSERT INTO feed VALUES(3,'provisioning',1795890525442700,X'5b7b226163636f756e74223a7b226e616d65223a22676f6e65222c2274656e616e744964223a2236663163396231652d376135352d346134332d396430652d306135663661316632633364227d7d5d',6230678293261750341);
INSERT INTO feed VALUES(4,'provisioning',1795890525449006,X'5b7b226163636f756e74223a7b226e616d65223a22676f6e65222c2264656c65746564223a747275657d7d5d',3284849591034349996);
INSERT INTO feed VALUES(5,'provisioning',1795890525466629,X'5b7b226e756d626572223a7b226b6579223a3434323037393436303130302c226163636f756e74223a22636f6e746f736f222c227365727669636573223a322c22637573746f6d486561646572223a227461672d30227d7d2c7b226e756d626572223a7b226b6579223a3434323037393436303130312c226163636f756e74223a22636f6e746f736f222c227365727669636573223a347d7d2c7b226e756d626572223a7b226b6579223a3434323037393436303130322c226163636f756e74223a22636f6e746f736f222c227365727669636573223a322c22637573746f6d486561646572223a227461672d32227d7d2c7b226e756d626572223a7b226b6579223a3434323037393436303130332c226163636f756e74223a22636f6e746f736f222c227365727669636573223a347d7d5d',-8370238072156218267);
INSERT INTO feed VALUES(6,'provisioning',1795890525474553,X'5b7b226e756d626572223a7b226b6579223a3434323037393436303130332c2264656c65746564223a747275657d7d5d',-6432052030395974508);
CREATE TABLE nodes (
	id      TEXT NOT NULL PRIMARY KEY,
	written BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO nodes VALUES('n1',1795890525417323);
CREATE TABLE schema_info (
	id      BIGINT NOT NULL PRIMARY KEY,
	version BIGINT NOT NULL,
	oldest  BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO schema_info VALUES(1,3,1);
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('goose_db_version',4);
CREATE INDEX accounts_tenant ON accounts (tenant_key, name);
CREATE INDEX numbers_account ON numbers (account, number);
CREATE INDEX repeatability_made ON repeatability (made);
COMMIT;
