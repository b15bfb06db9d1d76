package event

// JournalCheckpointed says what the journal held when it had Size events, signed
// with the audit key. It stands under Instance, in ev._.journal, behind the
// events that it counts.
type JournalCheckpointed struct {
	Size      uint64 `json:"size"`       // events counted: those with sequences up to it
	Root      Hash   `json:"root"`       // of the Merkle tree over their public lines (RFC 6962)
	Zones     uint64 `json:"zones"`      // chains of events, that of the whole instance included
	ZonesRoot Hash   `json:"zones_root"` // of the Merkle tree over the heads of the chains
	Note      string `json:"note"`       // the same as a signed note (C2SP tlog-checkpoint)
}

// JournalCosigned keeps what a witness signed. It stands under Instance.
type JournalCosigned struct {
	Size    uint64 `json:"size"`    // of the checkpoint
	Witness string `json:"witness"` // name of the witness's key
	Note    string `json:"note"`    // the checkpoint with its own signature and that of the witness
}

// EventType implements Facts.
func (*JournalCheckpointed) EventType() string { return "journal.checkpointed" }

// EventType implements Facts.
func (*JournalCosigned) EventType() string { return "journal.cosigned" }
