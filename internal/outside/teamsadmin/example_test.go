package teamsadmin_test

import (
	"context"
	"fmt"
	"time"

	"github.com/tandemgw/tandem/internal/domain/fault"
	"github.com/tandemgw/tandem/internal/outside/entra"
	"github.com/tandemgw/tandem/internal/outside/teamsadmin"
)

// The app acts on its own in a tenant where it has the role Teams Administrator: it adds a PSTN usage and makes a voice
// routing policy with it.
func Example() {
	ctx, tenant := context.Background(), "22222222-aaaa-4bbb-8ccc-000000000002"
	app, err := entra.New(entra.Config{ClientID: "11111111-aaaa-4bbb-8ccc-000000000001"}) // and a certificate
	if err != nil {
		fmt.Println(err)
		return
	}
	var admin teamsadmin.Admin
	admin, err = teamsadmin.New(teamsadmin.Config{Enabled: true, UserAgent: "Tandem/1",
		Tokens: app.Connect(tenant, nil, time.Time{}).Source(entra.TeamsAdmin)})
	if err != nil {
		fmt.Println(err)
		return
	}

	if err := admin.AddUsages(ctx, "Tandem-E164"); err != nil {
		fmt.Println(err)
		return
	}
	err = admin.Create(ctx, teamsadmin.Object{Type: teamsadmin.VoiceRoutingPolicy, Identity: "Tandem-E164",
		Settings: teamsadmin.Settings{"OnlinePstnUsages": []string{"Tandem-E164"}}})
	if fault.HasCode(err, teamsadmin.CodeUnknown) || fault.HasCode(err, teamsadmin.CodeExists) {
		return // read the policy back before creating it again
	}
}
