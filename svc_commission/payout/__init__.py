"""Money beside the orders: adjustments, payouts, opening balances. Begin with `servicer_payout`."""
