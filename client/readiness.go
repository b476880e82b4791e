package client

import (
	"context"

	api "github.com/tandemgw/tandem/api/manage"
)

// Readiness checks whether the tenant of an account can be onboarded. It changes nothing there.
func (c *Client) Readiness(ctx context.Context, account string) (*api.Readiness, error) {
	return read[api.Readiness](c.manage().CheckReadiness(ctx, account))
}

// Carrier checks whether the operator's own tenant is ready for customers. It changes nothing there.
func (c *Client) Carrier(ctx context.Context) (*api.CarrierReport, error) {
	return read[api.CarrierReport](c.manage().CheckCarrier(ctx))
}

// CarrierApp returns the operator's app registration as it must be.
func (c *Client) CarrierApp(ctx context.Context) (*api.CarrierApp, error) {
	return read[api.CarrierApp](c.manage().GetCarrierApp(ctx))
}

// CreateCarrierApp makes the app registration in the operator's tenant.
func (c *Client) CreateCarrierApp(ctx context.Context) (*api.CarrierApp, error) {
	return read[api.CarrierApp](c.manage().CreateCarrierApp(ctx))
}

// CheckCarrierApp compares the app registration with how it must be.
func (c *Client) CheckCarrierApp(ctx context.Context) (*api.CarrierAppReport, error) {
	return read[api.CarrierAppReport](c.manage().CheckCarrierApp(ctx))
}
