package api

import (
	"slices"

	"sluice/keymgr"
	"sluice/pipeline"
)

// keyRoutes are about DNSSEC keys.
func keyRoutes() []Route {
	status := document(pipeline.ZoneStatus{}, "the zone's status")
	return tagged(
		"keys",
		get("/zones/{zone}/keys", "listKeys", RoleViewer, "All keys that a zone ever had.",
			paged([]keymgr.Key{}, "keys"), (*server).listKeys, pageParams()...),
		change("POST", "/zones/{zone}/keys", "generateKey", RoleOperator, "Make a key.",
			NewKey{}, created([]keymgr.Key{}, "the keys"), (*server).generateKey),
		change("POST", "/zones/{zone}/keys/files", "importKeys", RoleOperator, "Import keys from files on the daemon's machine.",
			ImportKeys{}, created([]keymgr.Key{}, "the keys"), (*server).importKeys),
		change("DELETE", "/zones/{zone}/keys/{key}", "removeKey", RoleOperator, "Take a key out that is not in use.",
			nil, status, (*server).removeKey),
		change("POST", "/zones/{zone}/keys/{key}/publish", "publishKey", RoleOperator, "Have a key stand by in the DNSKEY RRset.",
			nil, status, (*server).publishKey),
		change("POST", "/zones/{zone}/keys/{key}/export", "exportKey", RoleAdmin, "The private part of a key.",
			ExportKey{}, document(keymgr.KeyFiles{}, "its files"), (*server).exportKey),
		change("POST", "/keys/distribute", "distributeKeys", RoleOperator, "Hand keys to the workers that are to have them.",
			DistributeKeys{}, document([]pipeline.KeyShare{}, "what each worker holds"), (*server).distributeKeys),
		get("/zones/{zone}/ds", "listDS", RoleViewer, "Records for the parent.",
			document([]pipeline.DSRecord{}, "the records"), (*server).ds,
			Param{
				Name: "format", Type: TextParam, Text: "which records; absent: ds",
				Values: []string{"ds", "cds", "cdnskey", "dnskey", pipeline.FormatSignal},
			}),
	)
}

// rolloverRoutes are about the exchange of keys.
func rolloverRoutes() []Route {
	status := document(pipeline.ZoneStatus{}, "the zone's status")
	return tagged(
		"rollovers",
		get("/zones/{zone}/rollovers", "listRollovers", RoleViewer, "The rollovers that run.",
			document([]pipeline.RolloverStatus{}, "rollovers"), (*server).listRollovers),
		change("POST", "/zones/{zone}/rollovers", "startRollover", RoleOperator, "Begin a rollover.",
			pipeline.RolloverRequest{}, created(pipeline.ZoneStatus{}, "the zone's status"), (*server).roll),
		change("POST", "/zones/{zone}/rollovers/abort", "abortRollover", RoleOperator, "End a rollover, or have it go the way back.",
			AbortRollover{}, status, (*server).abortRollover),
		change("POST", "/zones/{zone}/rollovers/report", "reportStep", RoleOperator, "Tell what was seen, or let the next step begin.",
			pipeline.StepReport{}, status, (*server).reportStep),
		get("/zones/{zone}/rollovers/plan", "planKeys", RoleViewer, "What will happen to the zone's keys, and when.",
			document([]pipeline.PlannedStep{}, "planned steps"), (*server).keyPlan, moment("until", "not after")),
	)
}

// backupRoutes are about the marks of keys that were backed up.
func backupRoutes() []Route {
	return tagged(
		"keys",
		get("/backups", "listBackups", RoleViewer, "Keys whose private parts are in keystores, and whether they were backed up.",
			paged([]pipeline.BackupKey{}, "keys with their zones"), (*server).listBackups,
			slices.Concat([]Param{
				text("zone", "only keys of this zone"), yesNo("missing", "only keys that were not backed up"),
			}, pageParams())...),
		change("POST", "/backups", "markBackups", RoleOperator, "Note that keys were backed up.",
			pipeline.BackupRequest{}, document([]pipeline.BackupKey{}, "the keys that were marked"), (*server).markBackup),
	)
}

func policyRoutes() []Route {
	return tagged(
		"policies",
		get("/policies", "listPolicies", RoleViewer, "The policies.",
			document([]pipeline.PolicyInfo{}, "policies"), (*server).listPolicies),
		get("/policies/{policy}", "getPolicy", RoleViewer, "A policy and its text.",
			document(pipeline.PolicyInfo{}, "the policy"), (*server).showPolicy),
		get("/policies/{policy}/diff", "diffPolicy", RoleViewer, "What reading the policy files anew would do to a policy and its zones; nothing is changed.",
			document(pipeline.PolicyPlan{}, "what would change"), (*server).diffPolicy),
		change("POST", "/policies/reload", "reloadPolicies", RoleOperator, "Read the policy files anew.",
			nil, document(pipeline.PolicyChange{}, "what changed"), (*server).reloadPolicies),
		change("PUT", "/policies/{policy}", "putPolicy", RoleAdmin, "Write a policy into the policy folder and bind its zones to it, or tell what that would do.",
			pipeline.NewPolicy{}, document(pipeline.PolicyPlan{}, "what changes"), (*server).putPolicy),
		change("DELETE", "/policies/{policy}", "removePolicy", RoleAdmin, "Remove a policy, which no zone may be bound to, from the policy folder.",
			nil, done(), (*server).removePolicy, text("reason", "why, for the history")),
		planning(change("POST", "/outlook", "getOutlook", RoleViewer, "What would change where policies and zones were as wished; nothing is changed.",
			pipeline.FleetWish{}, document(pipeline.FleetOutlook{}, "what would change"), (*server).outlook)),
	)
}

// secretRoutes are about TSIG keys and keystores.
func secretRoutes() []Route {
	return tagged(
		"secrets",
		get("/tsig", "listTSIG", RoleViewer, "The TSIG keys, without their secrets.",
			document([]pipeline.TSIGKey{}, "TSIG keys"), (*server).listTSIG),
		change("POST", "/tsig", "addTSIG", RoleAdmin, "Add a TSIG key.",
			pipeline.NewTSIG{}, created(pipeline.TSIGKey{}, "the key, without its secret"), (*server).addTSIG),
		get("/tsig/{key}", "exportTSIG", RoleAdmin, "A TSIG key with its secret.",
			document(pipeline.TSIGSecret{}, "the key"), (*server).exportTSIG),
		change("DELETE", "/tsig/{key}", "removeTSIG", RoleAdmin, "Remove a TSIG key.",
			nil, done(), (*server).removeTSIG),
		get("/keystores", "listKeystores", RoleViewer, "The keystores, and how they are.",
			document([]pipeline.KeystoreInfo{}, "keystores"), (*server).listKeystores),
		change("POST", "/keystores", "addKeystore", RoleAdmin, "Take up a token.",
			pipeline.NewKeystore{}, created(pipeline.KeystoreInfo{}, "the keystore"), (*server).addKeystore),
		get("/keystores/{keystore}", "getKeystore", RoleViewer, "How a keystore is.",
			document(pipeline.KeystoreInfo{}, "the keystore"), (*server).showKeystore),
		change("DELETE", "/keystores/{keystore}", "removeKeystore", RoleAdmin, "End the use of a token.",
			nil, done(), (*server).removeKeystore),
		change("POST", "/keystores/{keystore}/test", "testKeystore", RoleAdmin, "Sign on a token with a key that it forgets again.",
			pipeline.KeystoreTest{}, document(pipeline.KeystoreReport{}, "how it went"), (*server).testKeystore),
	)
}
