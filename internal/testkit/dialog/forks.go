package dialog

import (
	"errors"
	"fmt"

	"github.com/tandemgw/tandem/internal/calls/sip"
)

// maxForks bounds the dialogs of one INVITE.
const maxForks = 16

// Forks holds the dialogs that the responses to one INVITE of ours make, each by its own To tag: a proxy on the way may ring several phones
// (RFC 3261 §12.1, §13.2.2). The zero value is not usable; see [NewForks].
type Forks struct {
	invite *sip.Message
	all    []*Dialog
}

// NewForks starts with no dialog. It keeps the INVITE until [Forks.Release].
func NewForks(invite *sip.Message) *Forks { return &Forks{invite: invite} }

// Response finds or makes the dialog of a response. fresh tells that it is a new one. A 100, or a provisional response without To tag, makes none: d is nil without
// an error. An error says why the response cannot make a dialog; a 2xx must then be acknowledged all the same.
func (f *Forks) Response(res *sip.Message) (d *Dialog, fresh bool, err error) {
	status := res.Status()
	tag := res.ToTag()
	if status == 100 || status >= 300 || status < 200 && tag == "" {
		return nil, false, nil
	}
	for _, d = range f.all {
		if d.id.Remote == tag {
			if d.confirmed {
				return d, false, nil // a 2xx that came again, or a provisional response that was overtaken
			}
			if err := d.Answered(res); err != nil {
				return d, false, err
			}
			return d, false, nil
		}
	}
	if f.invite == nil {
		return nil, false, errors.New("a new fork answers though the INVITE is settled")
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

// All returns the dialogs in the order in which they were made. The caller must not change it.
func (f *Forks) All() []*Dialog { return f.all }

// Keep drops all dialogs but one: the INVITE is settled.
func (f *Forks) Keep(d *Dialog) { f.all = append(f.all[:0:0], d) }

// Release lets go of the INVITE, once no further fork can answer: 64×T1 after the first 2xx.
func (f *Forks) Release() { f.invite = nil }
