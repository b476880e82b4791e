package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/tenants/onboard"
	"github.com/tandemgw/tandem/internal/tenants/plan"
)

// Format is the version of the documents that are written. Those of other versions are refused.
const Format = 1

// Document is what a snapshot has.
type Document struct {
	Format   int            `json:"format"`
	Account  string         `json:"account"`
	Tenant   string         `json:"tenant"` // the tenant's id at Microsoft
	Taken    time.Time      `json:"taken"`
	Reason   string         `json:"reason"`
	Wishes   onboard.Wishes `json:"wishes"`
	Settings plan.Settings  `json:"settings"` // labels with their trunk models among them
	MadeFor  onboard.Dial   `json:"madeFor,omitzero"`
	Entries  []Entry        `json:"entries"`
}

// Entry is an object that Tandem has made, or a user that it has activated.
type Entry struct {
	Made  plan.Made    `json:"made"`            // what Tandem has set, and what was there before
	Found *plan.Object `json:"found,omitempty"` // what was there when the snapshot was taken; nil if it was missing
}

// Sealer is a keyring: what it seals for a purpose opens with the same keyring and for the same purpose only.
type Sealer interface {
	SealToken(purpose string, plain []byte) ([]byte, error)
	OpenToken(purpose string, token []byte) ([]byte, error)
}

const purpose = "tenant snapshot"

// export is a signed document.
type export struct {
	Document json.RawMessage `json:"document"`
	Checksum string          `json:"checksum"` // SHA-256 of the document without white space, in hexadecimal digits
	// Signature is the checksum, sealed with the keyring, in base64: only who has the keyring can make it.
	Signature string `json:"signature"`
}

// Sign returns the export of a document.
func Sign(s Sealer, d *Document) ([]byte, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	sealed, err := s.SealToken(purpose, sum[:])
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(export{text, hex.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString(sealed)}, "",
		"  ")
}

// Verify returns the document of an export. Errors of kind fault.Invalid: SnapshotDamaged, SnapshotNotOurs and
// SnapshotFormat.
func Verify(s Sealer, text []byte) (*Document, error) {
	damaged := func(err error) error {
		return fault.New(fault.Invalid, "SnapshotDamaged",
			"this is not an export of a snapshot, or it was changed or cut "+
				"off since it was made; export it again (tandem tenant snapshot export)").Because(err)
	}
	var e export
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, damaged(err)
	}
	var plain bytes.Buffer
	if err := json.Compact(&plain, e.Document); err != nil {
		return nil, damaged(err)
	}
	sum := sha256.Sum256(plain.Bytes())
	if e.Checksum != hex.EncodeToString(sum[:]) {
		return nil, damaged(nil)
	}

	sealed, err := base64.StdEncoding.DecodeString(e.Signature)
	if err != nil {
		return nil, damaged(err)
	}
	signed, err := s.OpenToken(purpose, sealed)
	if err != nil || !bytes.Equal(signed, sum[:]) {
		return nil, fault.New(fault.Invalid, "SnapshotNotOurs", "the snapshot was not signed with a key of this "+
			"installation's keyring; import it where it was taken, or restore the keyring of that time").Because(err)
	}

	var d Document
	var version struct{ Format int }
	if err := json.Unmarshal(e.Document, &version); err != nil {
		return nil, damaged(err)
	}
	if version.Format != Format {
		return nil, fault.New(fault.Invalid, "SnapshotFormat", "the snapshot has format %d, and this release reads "+
			"format %d; use the release that took it", version.Format, Format)
	}
	if err := json.Unmarshal(e.Document, &d); err != nil {
		return nil, damaged(err)
	}
	return &d, nil
}
