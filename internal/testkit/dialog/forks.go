package dialog

import (
	"errors"
	"fmt"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// maxForks limits the dialogs of one INVITE.
const maxForks = 16

// Forks holds the dialogs created by the responses to one INVITE of ours, each with its own To tag: a proxy on the path
// may ring several phones (RFC 3261 §12.1, §13.2.2). The zero value is not usable; see [NewForks].
type Forks struct {
	invite *sip.Message
	all    []*Dialog
}

// NewForks returns a Forks without dialogs. It keeps the INVITE until [Forks.Release].
func NewForks(invite *sip.Message) *Forks { return &Forks{invite: invite} }

// Response finds or creates the dialog of a response; fresh reports whether it is new. A 100, or a provisional response
// without To tag, creates none: d is nil without an error. An error says why the response cannot create a dialog; a 2xx
// must be acknowledged nevertheless.
func (f *Forks) Response(res *sip.Message) (d *Dialog, fresh bool, err error) {
	status := res.Status()
	tag := res.ToTag()
	if status == 100 || status >= 300 || status < 200 && tag == "" {
		return nil, false, nil
	}
	for _, d = range f.all {
		if d.id.Remote == tag {
			if d.confirmed {
				return d, false, nil // a retransmitted 2xx, or a provisional response that was overtaken
			}
			if err := d.Answered(res); err != nil {
				return d, false, err
			}
			return d, false, nil
		}
	}
	if f.invite == nil {
		return nil, false, errors.New("a new fork answers although the INVITE is complete")
	}
	if len(f.all) == maxForks {
		return nil, false, fmt.Errorf("more than %d forks answer one INVITE", maxForks)
	}
	if d, err = Calling(f.invite, res); err != nil {
		return nil, false, err
	}
	f.all = append(f.all, d)
	return d, true, nil
}

// All returns the dialogs in the order in which they were created. The caller must not change it.
func (f *Forks) All() []*Dialog { return f.all }

// Keep drops all dialogs except d, once the INVITE is complete.
func (f *Forks) Keep(d *Dialog) { f.all = append(f.all[:0:0], d) }

// Release drops the INVITE, once no further fork can answer: 64×T1 after the first 2xx.
func (f *Forks) Release() { f.invite = nil }
